// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is known of an MSR, for people.

/// To be written.
#[derive(Debug)]
pub struct Explanation;

/// To be written.
pub fn explain(_index: u32) -> Explanation {
    Explanation
}
