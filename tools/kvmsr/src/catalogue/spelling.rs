// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which spellings of a name are one. The build needs it too.

/// How many there are.
pub const FORMS: usize = 3;

/// A name in lower case, the same without the `MSR_` that some put before every name, and without
/// `IA32_` as well, which Linux has before more names than the manuals.
///
/// They are tried in this order, as a few MSRs differ in nothing else.
pub fn forms(name: &str) -> [String; FORMS] {
    let exact = name.trim().to_ascii_lowercase();
    let plain = exact.strip_prefix("msr_").unwrap_or(&exact).to_owned();
    let short = plain.strip_prefix("ia32_").unwrap_or(&plain).to_owned();

    [exact, plain, short]
}
