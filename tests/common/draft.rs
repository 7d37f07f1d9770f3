//! A small checkpoint in memory, to be changed and written.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor's type, shape and bytes.
pub type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// A checkpoint: its configuration and its tensors.
#[derive(Clone)]
pub struct Draft {
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Draft {
    /// One of the single-file checkpoints in `tests/fixtures`.
    pub fn fixture(name: &str) -> Draft {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors =
            file.iter().map(|(n, t)| (n.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())));
        Draft {
            config: serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap(),
            tensors: tensors.collect(),
        }
    }

    /// A packed Llama of two layers, hidden width 128, with norms inside its linears.
    pub fn packed() -> Draft {
        Draft::fixture("llama-rmsnorm-autobitlinear")
    }

    /// A tensor to change.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.get_mut(name).unwrap()
    }

    /// Adds a copy under another name.
    pub fn copy(&mut self, from: &str, to: &str) {
        let tensor = self.tensors[from].clone();
        self.tensors.insert(to.into(), tensor);
    }

    /// Every packed weight as bf16 trits.
    pub fn unpacked(mut self) -> Draft {
        for (dtype, shape, bytes) in self.tensors.values_mut().filter(|t| t.0 == Dtype::U8) {
            let trits =
                (0..4).flat_map(|pair| bytes.iter().map(move |b| f32::from(b >> (2 * pair) & 3) - 1.0));
            *bytes = trits.flat_map(|t| half::bf16::from_f32(t).to_le_bytes()).collect();
            *dtype = Dtype::BF16;
            shape[0] *= 4;
        }
        self
    }

    /// Writes `config.json` and `model.safetensors`.
    pub fn write(&self, dir: &Path) {
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        write_tensors(self.tensors.iter(), &dir.join("model.safetensors"));
    }

    /// Writes two files, all scales in the first, and their index; returns its map.
    pub fn write_sharded(&self, dir: &Path) -> BTreeMap<String, String> {
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        let shard =
            |name: &str| if name.ends_with("_scale") { "model-1.safetensors" } else { "model-2.safetensors" };
        for file in ["model-1.safetensors", "model-2.safetensors"] {
            write_tensors(self.tensors.iter().filter(|(n, _)| shard(n) == file), &dir.join(file));
        }
        let map: BTreeMap<_, _> = self.tensors.keys().map(|n| (n.clone(), shard(n).to_owned())).collect();
        let index = json!({"metadata": {}, "weight_map": map});
        fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        map
    }
}

fn write_tensors<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>, path: &Path) {
    let views =
        tensors.map(|(n, (dtype, shape, bytes))| (n, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}
