// SPDX-License-Identifier: GPL-2.0

//! The return codes of KVM's functions that access MSRs: 0 for success, or a [`Denial`].

use crate::engine::{
    access::Result,
    exit::Denial, //
};
use kernel::prelude::*;

/// Converts a return code to a result.
#[inline]
pub(super) fn to_result(code: c_int) -> Result {
    if code == 0 {
        return Ok(());
    }
    denied(code)
}

/// Not inlined, so that the compiler keeps successful accesses apart, without a result to test.
#[cold]
#[inline(never)]
fn denied(code: c_int) -> Result {
    Denial::new(code.into()).map_or(Ok(()), Err)
}

/// Converts a denial to a return code.
#[inline]
pub(super) fn return_code(denial: Denial) -> c_int {
    // It fits: denials are return codes of KVM's functions, or small constants.
    denial.get() as c_int
}

/// Calls a function that stores the value it reads, and returns that value.
#[inline]
pub(super) fn read_with(read: impl FnOnce(*mut u64) -> c_int) -> Result<u64> {
    let mut data = 0;

    to_result(read(&mut data))?;
    Ok(data)
}
