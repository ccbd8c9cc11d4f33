//! The configuration: TOML file, checked and explained.

pub mod model;
