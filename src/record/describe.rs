//! What a record says of a model and of a subject.

use super::{Model, Record, Subject};
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

impl Record {
    /// Leaves out what tells whose machine it was: the host's name, and the paths of models.
    pub fn anonymise(&mut self) {
        self.environment.anonymise();
        for model in &mut self.models {
            self.command = self.command.replace(&model.name, &model.id);
            model.name = model.id.clone();
        }
    }
}

impl Subject {
    /// `layout/tier`, or the engine where it has no kernels of ours.
    pub fn kernel(&self) -> String {
        match (&self.layout, &self.tier) {
            (Some(layout), Some(tier)) => format!("{layout}/{tier}"),
            _ => self.engine.clone(),
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
