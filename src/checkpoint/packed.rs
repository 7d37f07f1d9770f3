//! Reading our own safetensors files; [`write::packed`](super::write::packed) describes them.

use super::config::ModelConfig;
use super::file;
use super::role::Role;
use super::safetensors::{Archive, Dtype, Entry};
use super::write::Origin;
use super::write::packed::{COMPANIONS, FORMAT, VERSION};
use super::{
    Checkpoint, Companions, Container, FloatTensor, POST_TRAINING_NOTE, Provenance, TensorInfo, Ternary,
    number, stated,
};
use crate::error::{Error, Result};
use ::safetensors::SafeTensors;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use tritmark_kernels::layout::{self, Layout};

/// Whether a safetensors file is one of ours.
///
/// # Errors
/// If it is no safetensors file.
pub fn is_packed(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.get("format").is_some_and(|format| format == FORMAT))
}

fn metadata(path: &Path) -> Result<HashMap<String, String>> {
    let bytes = file::map(path)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
        Error::input(path, format!("not a whole safetensors file of {} bytes: {e}", bytes.len()))
    })?;
    Ok(metadata.metadata().clone().unwrap_or_default())
}

/// Opens one of our files.
///
/// # Errors
/// If it is damaged or of a later version.
pub fn open(file: &str) -> Result<Checkpoint> {
    let path = Path::new(file);
    let metadata = metadata(path)?;
    let get = |key: &str| {
        metadata.get(key).ok_or_else(|| Error::input(path, format!("the metadata has no \"{key}\"")))
    };
    let version = get("version")?;
    if version != VERSION {
        return Err(Error::input(
            path,
            format!("version {version} of the format; this program reads {VERSION}"),
        )
        .hint("Update tritmark, or convert the source again."));
    }
    let config: ModelConfig = stated(path, "config", get("config")?)?;
    config.check(str::to_owned).map_err(|e| Error::input(path, format!("the metadata \"config\": {e}")))?;
    let layout_name = get("layout")?;
    let layout = layout::by_name(layout_name).ok_or_else(|| {
        let known: Vec<_> = layout::ALL.iter().map(|layout| layout.name()).collect();
        Error::input(path, format!("unknown layout {layout_name}; known: {}", known.join(", ")))
            .hint("Update tritmark, or convert the source again.")
    })?;
    let origin: Origin = stated(path, "origin", get("origin")?)?;
    let mut archive = Archive::default();
    archive.add(path, file::map(path)?)?;
    let packed = Packed::index(path, archive, layout, &config)?;
    let content = |name: &str| packed.archive.get(name).map(|e| packed.archive.data(e).to_vec());
    let tokenizer = content("tokenizer.json");
    let companions = COMPANIONS.iter().filter_map(|name| Some(((*name).to_owned(), content(name)?)));
    let companions = Companions::Files(companions.collect());
    let provenance = Provenance {
        name: file.into(),
        files: vec![path.into()],
        family: origin.family,
        dialect: format!("tritmark {layout_name}"),
        scale_rule: "f32 in the tensor X.scale multiplies".into(),
        post_training: origin.post_training,
        choices: vec![],
        notes: if origin.post_training { vec![POST_TRAINING_NOTE.into()] } else { vec![] },
    };
    let checkpoint = Checkpoint::new(config, provenance, tokenizer, Box::new(packed));
    let kept = metadata.get("kept").map(|kept| stated(path, "kept", kept)).transpose()?.unwrap_or_default();
    Ok(Checkpoint { kept, companions, ..checkpoint })
}

struct Packed {
    archive: Archive,
    infos: Vec<TensorInfo>,
    layout: &'static dyn Layout,
}

impl Packed {
    /// Proves that every tensor of the model is there, with its form and shape.
    fn index(
        path: &Path,
        archive: Archive,
        layout: &'static dyn Layout,
        config: &ModelConfig,
    ) -> Result<Self> {
        // Each block has seven matrices: more blocks than tensors cannot be.
        if config.layers > archive.entries().len() {
            return Err(Error::input(
                path,
                format!("{} blocks in {} tensors", config.layers, archive.entries().len()),
            ));
        }
        let mut infos = archive.infos();
        let mut take = |role: Role, shape: Vec<usize>, packed: bool| -> Result<()> {
            let name = role.to_string();
            let Some(i) = archive.position(&name) else {
                return Err(Error::tensor(path, name, format!("is missing; expected shape {shape:?}")));
            };
            let entry = &archive.entries()[i];
            let wrong = |expected: String| {
                let found = format!("{:?} {:?}", entry.dtype, entry.shape);
                Err(Error::tensor(path, &name, format!("expected {expected}, found {found}")))
            };
            if packed {
                let len = layout
                    .packed_len(shape[0], shape[1])
                    .map_err(|e| Error::tensor(path, &name, e.to_string()))?;
                if entry.dtype != Dtype::U8 || entry.shape != [len] {
                    return wrong(format!("U8 [{len}]"));
                }
                infos[i].form = layout.name().into();
            } else if entry.shape != shape {
                return wrong(format!("the shape {shape:?}"));
            }
            infos[i].role = Some(role);
            infos[i].shape = shape;
            Ok(())
        };
        for role in config.roles() {
            take(role, config.shape(role), role.is_matrix())?;
            role.scale().map_or(Ok(()), |scale| take(scale, vec![1], false))?;
        }
        Ok(Self { archive, infos, layout })
    }

    fn entry(&self, role: Role) -> Result<&Entry> {
        let name = role.to_string();
        self.archive.get(&name).ok_or_else(|| Error::Bug(format!("no tensor {name}")))
    }
}

impl Container for Packed {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn ternary(&self, role: Role, spare: Vec<i8>) -> Result<Ternary> {
        let entry = self.entry(role)?;
        let info = self.infos.iter().find(|i| i.role == Some(role));
        let Some(&[rows, cols]) = info.filter(|_| role.is_matrix()).map(|i| i.shape.as_slice()) else {
            return Err(self.archive.error(entry, "is no ternary matrix"));
        };
        let unpacked = self
            .layout
            .unpack_into(rows, cols, self.archive.data(entry), spare)
            .map_err(|e| self.archive.error(entry, e.to_string()))?;
        Ok(Ternary { trits: unpacked.trits, scale: self.scale(role)? })
    }

    fn scale(&self, role: Role) -> Result<f32> {
        let beside = role.scale().ok_or_else(|| Error::Bug(format!("{role:?} has no scale")))?;
        let entry = self.entry(beside)?;
        let scale = self.archive.float(entry)?.to_f32()[0];
        match scale.is_finite() && scale > 0.0 {
            true => Ok(scale),
            false => Err(self
                .archive
                .error(entry, format!("expected a positive finite scale, found {}", number(scale)))),
        }
    }

    fn float(&self, role: Role) -> Result<FloatTensor> {
        self.archive.float(self.entry(role)?)
    }

    fn release(&self) {
        self.archive.release();
    }

    fn float_rows(&self, role: Role, rows: Range<usize>) -> Result<FloatTensor> {
        let entry = self.entry(role)?;
        match entry.shape.len() {
            2 => self.archive.float_rows(entry, rows),
            _ => Ok(self.float(role)?.rows(rows)),
        }
    }
}
