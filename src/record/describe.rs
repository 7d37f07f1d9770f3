//! What a record says of a model and of a subject.

use super::{Model, Subject};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::role::{LayerRole, Role};
use std::fmt;

impl Model {
    /// Describes an opened checkpoint whose [`model_hash`](crate::verify::model_hash) is `hash`.
    pub fn describe(checkpoint: &Checkpoint, hash: String) -> Self {
        let provenance = &checkpoint.provenance;
        let weights = checkpoint
            .tensors()
            .iter()
            .filter(|t| t.role.is_some() && !matches!(t.role, Some(Role::Layer(_, LayerRole::Scale(_)))));
        // Records may travel: a path would tell whose machine it was.
        let id = std::path::Path::new(&provenance.name).file_name().unwrap_or(provenance.name.as_ref());
        Self {
            id: id.to_string_lossy().into_owned(),
            name: provenance.name.clone(),
            family: format!("{}, {}", provenance.family, provenance.scale_rule),
            dialect: provenance.dialect.clone(),
            hash,
            config: checkpoint.config.clone(),
            params: weights.map(|t| t.shape.iter().product::<usize>() as u64).sum(),
            linear_params: checkpoint.config.linear_params(),
            file_bytes: checkpoint.tensors().iter().map(|t| t.bytes).sum(),
            post_training: provenance.post_training,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine)?;
        if let Some(layout) = &self.layout {
            write!(f, " {layout}")?;
        }
        if let Some(tier) = &self.tier {
            write!(f, "/{tier}")?;
        }
        if let Some(variant) = &self.variant {
            write!(f, ", {variant}")?;
        }
        write!(f, ", {} thread{}", self.threads, if self.threads == 1 { "" } else { "s" })
    }
}
