//! - `get`: asks for `/`, and reads the answer to its end.
//! - `hang-up`: the same, and in turn with it asks for `/large` and goes when the answer
//!   has begun.

use std::io;

use leakwatch_tests::wire::http::{begin, get};

use crate::{Orders, unknown};

pub fn run(mut orders: Orders) -> io::Result<()> {
    let hang_up = match orders.mode.as_str() {
        "get" => false,
        "hang-up" => true,
        other => return Err(unknown(other)),
    };
    for i in 0.. {
        orders.beat(i);
        if hang_up && i % 2 == 1 {
            drop(begin(&orders.at, "/large")?);
        } else {
            get(&orders.at, "/")?;
        }
    }
    Ok(())
}
