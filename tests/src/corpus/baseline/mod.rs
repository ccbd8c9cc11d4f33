//! Two simpler methods, on the same traces.

mod fdleak;
mod predict;

pub use fdleak::Fdleak;
pub use predict::Predict;
