// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the program prints, as `tests/cmd` has it: `*.trycmd` for commands, `*.toml` for those that
//! read standard input. `TRYCMD=overwrite cargo test --test golden` writes what has changed.

#[test]
fn golden() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd")
        .case("tests/cmd/*.toml");
}
