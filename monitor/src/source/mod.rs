//! Stage 1: the only code that reads the kernel.

pub mod model;
