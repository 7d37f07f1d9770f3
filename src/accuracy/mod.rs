//! Accuracy: perplexity under a named convention, divergence of two subjects, multiple choice.
//!
//! A perplexity without its convention is not a result, see [`Convention`]. Every figure here is a
//! function of the logits alone: sums run in a fixed order in f64, so equal logits give equal bits,
//! whatever the number of threads and wherever an interrupted run was resumed.

mod divergence;
mod logits_file;
mod model;
mod perplexity;
mod softmax;
mod state;
pub mod tasks;
mod text;
mod window;

pub use model::{LanguageModel, Rows, Sink};
pub use perplexity::{Named, Options, Running, measure};
pub use text::{Text, read_text, text_files};
pub use window::{Convention, Window};
