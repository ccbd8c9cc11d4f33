//! The one loop: moves data from stage to stage.
