//! What a tensor's type id means.
//!
//! Ids are not unique: forks gave the same number to different types, and one id can stand for
//! several byte arrangements of the same size. What the size of the tensor cannot tell must be said
//! with a dialect.

use super::quant::Quant;
use super::reader::Tensor;
use half::{bf16, f16};
use std::collections::{BTreeMap, HashMap};
use tritmark_kernels::layout::tile::{self, Tile};
use tritmark_kernels::layout::{self, Layout};

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Block-quantised floats.
    Quant(Quant),
    /// A packed ternary matrix.
    Packed(&'static dyn Layout),
    /// A type that this program does not decode.
    Other(u32),
}

/// Ternary types: ggml id, layouts that it can stand for. Sizes tell most of them apart; of those
/// that are equally long the first is the one that the format's own writers use on x86.
pub const TERNARY: &[(u32, &[&str])] = &[
    (34, &["tq1_0"]),
    (35, &["tq2_0"]),
    (36, &["i2_s", "i2_s_arm", "i2_s_4row"]),
    (38, &["tl1"]),
    (39, &["tl2"]),
    (42, &["q2_0", "q2_0_g128", "tl2"]),
    (134, &["iq1_bn"]),
    (135, &["iq2_bn"]),
];

/// Heights of the tiles of `tl1` and `tl2`, published or derived.
const TILE_ROWS: &[usize] = &[320, 256, 160, 128, 64, 32];

/// Whether `name` is `layout` or that layout with explicit tiles.
fn is_or_tiles(name: &str, layout: &str) -> bool {
    name.strip_prefix(layout).is_some_and(|rest| rest.is_empty() || rest.starts_with("_BM"))
}

/// Whether tensors of a type id may be of a layout.
pub fn may_be(id: u32, layout: &str) -> bool {
    let row = TERNARY.iter().find(|(known, _)| *known == id);
    row.is_some_and(|(_, names)| names.iter().any(|name| is_or_tiles(layout, name)))
}

/// The id under which a layout is written.
pub fn ternary_id(layout: &str) -> Option<u32> {
    let row = TERNARY.iter().find(|(_, names)| names.iter().any(|name| is_or_tiles(layout, name)));
    row.map(|(id, _)| *id)
}

/// Types that hold floats: ggml id and form.
const FLOATS: &[(u32, Form)] = &[
    (0, Form::F32),
    (1, Form::F16),
    (2, Form::Quant(Quant::Q4_0)),
    (8, Form::Quant(Quant::Q8_0)),
    (14, Form::Quant(Quant::Q6K)),
    (30, Form::Bf16),
];

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Form {}

impl Form {
    /// The ggml id under which this form is written; `None` for layouts that no GGUF holds.
    pub fn id(self) -> Option<u32> {
        match self {
            Form::Packed(layout) => ternary_id(layout.name()),
            Form::Other(id) => Some(id),
            _ => FLOATS.iter().find(|(_, form)| form.name() == self.name()).map(|(id, _)| *id),
        }
    }

    /// Its name, as in listings and options.
    pub fn name(self) -> String {
        match self {
            Form::F32 => "f32".into(),
            Form::F16 => "f16".into(),
            Form::Bf16 => "bf16".into(),
            Form::Quant(Quant::Q4_0) => "q4_0".into(),
            Form::Quant(Quant::Q8_0) => "q8_0".into(),
            Form::Quant(Quant::Q6K) => "q6_k".into(),
            Form::Packed(layout) => layout.name().into(),
            Form::Other(id) => format!("ggml type {id}"),
        }
    }

    /// The float form of that name.
    pub fn float(name: &str) -> Option<Form> {
        FLOATS.iter().map(|(_, form)| *form).find(|form| form.name() == name)
    }

    /// A value as the form holds it; `None` where it holds no single floats.
    pub fn round(self, x: f32) -> Option<f32> {
        match self {
            Form::F32 => Some(x),
            Form::F16 => Some(f16::from_f32(x).to_f32()),
            Form::Bf16 => Some(bf16::from_f32(x).to_f32()),
            _ => None,
        }
    }

    /// Bytes of a `rows` × `cols` tensor.
    ///
    /// # Errors
    /// What the form requires of the shape.
    pub fn len(self, rows: usize, cols: usize) -> Result<usize, String> {
        let (values, bytes) = match self {
            Form::F32 => (1, 4),
            Form::F16 | Form::Bf16 => (1, 2),
            Form::Quant(quant) => quant.block(),
            Form::Packed(layout) => return layout.packed_len(rows, cols).map_err(|e| e.to_string()),
            Form::Other(id) => return Err(format!("type {id} is not one that tritmark decodes")),
        };
        if !cols.is_multiple_of(values) {
            return Err(format!(
                "{} needs columns that are a multiple of {values}, found {cols}",
                self.name()
            ));
        }
        rows.checked_mul(cols / values)
            .and_then(|n| n.checked_mul(bytes))
            .ok_or_else(|| format!("{rows}x{cols} values do not fit in memory"))
    }
}

/// A tensor's form and its length in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Resolved {
    /// The form.
    pub form: Form,
    /// Bytes of the tensor itself; 0 for [`Form::Other`], whose length is not known.
    pub len: usize,
}

/// What [`resolve`] finds.
pub struct Resolution {
    /// One for each tensor.
    pub forms: Vec<Resolved>,
    /// What neither ids nor lengths nor the file's metadata tell.
    pub open: Vec<Open>,
}

/// Tensors of one type that could have any of several layouts of equal length.
pub struct Open {
    /// Their indices.
    pub tensors: Vec<usize>,
    /// The layouts. [`Resolution::forms`] has the first.
    pub candidates: Vec<&'static dyn Layout>,
    /// Whether the first is what the only known writer makes of this shape, so that nothing else is
    /// likely although nothing proves it.
    pub published: bool,
}

/// Finds out what the type ids of a file stand for. `dialect` is a layout that the user or the file's
/// own metadata names.
///
/// # Errors
/// The tensor at fault and why: no meaning of its id fits its bytes, or several of unequal length do
/// and `dialect` names none of them.
pub fn resolve(
    tensors: &[Tensor],
    alignment: u64,
    dialect: Option<&str>,
) -> Result<Resolution, (String, String)> {
    let mut open = vec![];
    let mut meaning: HashMap<u32, Form> = HashMap::new();
    for (id, names) in TERNARY {
        let indices: Vec<usize> = (0..tensors.len()).filter(|&i| tensors[i].kind == *id).collect();
        let of_id: Vec<&Tensor> = indices.iter().map(|&i| &tensors[i]).collect();
        let Some(first) = of_id.first() else { continue };
        let stated = dialect.filter(|d| names.iter().any(|name| is_or_tiles(d, name)));
        let names = stated.as_ref().map_or(*names, std::slice::from_ref);
        let fits = fitting(&of_id, names, alignment);
        let Some(&taken) = fits.first() else { return Err(misfit(&of_id, names)) };
        let lens = |l: &dyn Layout| of_id.iter().map(|t| layout_len(l, t)).collect::<Vec<_>>();
        if fits.iter().any(|l| lens(*l) != lens(taken)) {
            let others: Vec<_> = fits[1..].iter().map(|l| l.name()).collect();
            let message = format!("type {id} could be {} or {}", taken.name(), others.join(" or "));
            return Err((first.name.clone(), message));
        }
        meaning.insert(*id, Form::Packed(taken));
        if fits.len() > 1 {
            open.push(Open { tensors: indices, candidates: fits, published: false });
        } else if stated.is_none() && matches!(taken.name(), "tl1" | "tl2") {
            open.extend(tiled(taken, tensors, &indices));
        }
    }
    let forms = tensors.iter().map(|tensor| {
        let float = FLOATS.iter().find(|(id, _)| *id == tensor.kind).map(|(_, form)| *form);
        let Some(form) = float.or_else(|| meaning.get(&tensor.kind).copied()) else {
            return Ok(Resolved { form: Form::Other(tensor.kind), len: 0 });
        };
        let (rows, cols) = matrix(tensor);
        let len = form.len(rows, cols).map_err(|message| (tensor.name.clone(), message))?;
        if len > tensor.room {
            let message = format!(
                "{} of {rows}x{cols} needs {len} bytes, but only {} lie before the next tensor or the end of the file: it is cut short, or tensors overlap",
                form.name(),
                tensor.room
            );
            return Err((tensor.name.clone(), message));
        }
        Ok(Resolved { form, len })
    });
    Ok(Resolution { forms: forms.collect::<Result<_, _>>()?, open })
}

/// What the tensors of each shape in `tl1` or `tl2` could be: no file states its tiles.
fn tiled(layout: &'static dyn Layout, tensors: &[Tensor], indices: &[usize]) -> Vec<Open> {
    let mut shapes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for &i in indices {
        shapes.entry(matrix(&tensors[i])).or_default().push(i);
    }
    let open = shapes.into_iter().map(|((rows, cols), of_shape)| {
        let published = tile::PUBLISHED.iter().any(|p| (p.0, p.1) == (rows, cols));
        let candidates = std::iter::once(layout).chain(other_tiles(layout, rows, cols)).collect();
        Open { tensors: of_shape, candidates, published }
    });
    open.collect()
}

/// Layouts that cut a matrix into other tiles than `layout`: those that anyone publishes for any shape
/// or that this program derives, as far as they fit this one and order its bytes in another way.
fn other_tiles(layout: &'static dyn Layout, rows: usize, cols: usize) -> Vec<&'static dyn Layout> {
    let (own, widths, inner): (_, &[usize], &[usize]) = match layout.name() {
        "tl1" => (layout::TL1.tile(rows, cols), &[128, 64, 32], &[32, 64]),
        _ => (layout::TL2.tile(rows, cols), &[192, 96], &[32]),
    };
    // Where one tile is as wide as what it cuts, its height makes no difference.
    let order = |t: Tile| {
        let rest = if layout.name() == "tl1" { 0 } else { cols % t.cols };
        let one = cols - rest <= t.cols && rest <= 32;
        (if one { rows } else { t.rows }, t.cols, t.inner_rows)
    };
    let (mut seen, mut others) = (vec![order(own)], vec![]);
    for &tile_rows in TILE_ROWS {
        for &tile_cols in widths {
            for &inner_rows in inner {
                let tile = Tile { rows: tile_rows, cols: tile_cols, inner_rows };
                let found = layout::by_name(&format!("{}_{tile}", layout.name()));
                let Some(found) = found.filter(|l| l.packed_len(rows, cols).is_ok()) else { continue };
                if !seen.contains(&order(tile)) {
                    seen.push(order(tile));
                    others.push(found);
                }
            }
        }
    }
    others
}

fn layout_len(layout: &dyn Layout, tensor: &Tensor) -> Option<usize> {
    let (rows, cols) = matrix(tensor);
    layout.packed_len(rows, cols).ok().filter(|&len| len <= tensor.room)
}

/// The layouts that fit every tensor: if possible with nothing but padding behind each, else with gaps.
fn fitting(tensors: &[&Tensor], names: &[&str], alignment: u64) -> Vec<&'static dyn Layout> {
    let layouts: Vec<_> = names.iter().filter_map(|name| layout::by_name(name)).collect();
    let fit = |slack: usize| {
        let fits = |l: &&'static dyn Layout| {
            tensors.iter().all(|t| layout_len(*l, t).is_some_and(|len| t.room - len < slack))
        };
        layouts.iter().copied().filter(fits).collect::<Vec<_>>()
    };
    let tight = fit(alignment as usize);
    if tight.is_empty() { fit(usize::MAX) } else { tight }
}

/// Why no meaning fits.
fn misfit(tensors: &[&Tensor], names: &[&str]) -> (String, String) {
    let layouts = || names.iter().filter_map(|name| layout::by_name(name));
    let alone = |t: &&&Tensor| layouts().all(|l| layout_len(l, t).is_none());
    let tensor = tensors.iter().find(alone).unwrap_or(&tensors[0]);
    let (rows, cols) = matrix(tensor);
    let needs = layouts().map(|l| match l.packed_len(rows, cols) {
        Ok(len) => format!("{} needs {len} bytes", l.name()),
        Err(e) => e.to_string(),
    });
    let needs = needs.collect::<Vec<_>>().join("; ");
    let message = format!(
        "{rows}x{cols} values of type {} do not fit the {} bytes up to the next tensor or the end of the file: it is cut short, damaged, or of an unknown dialect ({needs})",
        tensor.kind, tensor.room
    );
    (tensor.name.clone(), message)
}

/// Rows and columns, all dimensions but the fastest as rows.
pub fn matrix(tensor: &Tensor) -> (usize, usize) {
    let cols = tensor.ne[0] as usize;
    (tensor.elements() as usize / cols, cols)
}
