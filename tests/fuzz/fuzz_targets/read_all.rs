//! What both targets do with a checkpoint that is not refused.

use tritmark::checkpoint::Checkpoint;
use tritmark::checkpoint::role::{LayerRole, Role};

/// Decodes every tensor. A tensor that is refused is fine; a panic or a huge allocation is not.
pub fn read_all(checkpoint: &Checkpoint) {
    for info in checkpoint.tensors() {
        match info.role {
            Some(role @ Role::Layer(_, LayerRole::Linear(_))) => drop(checkpoint.ternary(role)),
            Some(role) => drop(checkpoint.float(role)),
            None => {}
        }
    }
}
