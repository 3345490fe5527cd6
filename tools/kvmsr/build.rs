// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Turns the tables of `data/` into arrays that need no parsing when the program runs.

fn main() {}
