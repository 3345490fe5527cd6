// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The rows of the files of `data/`.

use std::env;
use std::error::Error;
use std::path::Path;

use serde::de::DeserializeOwned;

/// All rows of a file, as `Row`.
pub fn read<Row: DeserializeOwned>(file: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    csv::Reader::from_path(Path::new("data").join(file))?
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(|error| format!("data/{file}: {error}").into())
}

/// Whether rows with these sources are included.
pub fn is_wanted(sources: &str) -> bool {
    const GPL: [&str; 4] = ["linux", "xen", "qemu", "public"];
    let is_gpl = |source: &str| GPL.contains(&source.split(':').next().unwrap_or_default());

    env::var_os("CARGO_FEATURE_GPL_SOURCED_FIELDS").is_some() || !sources.split('+').all(is_gpl)
}
