// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The program's output, as in `tests/cmd`: `*.trycmd` for commands, `*.toml` for commands with
//! standard input. `TRYCMD=overwrite cargo test --test golden` writes changes.

#[test]
fn golden() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd")
        .case("tests/cmd/*.toml");
}
