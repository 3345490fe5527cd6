// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Errors that say what to do.

use std::io;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An ioctl of KVM's failed.
    #[error("{ioctl}: {source}")]
    Kvm {
        /// Its name, as `KVM_CREATE_VM`.
        ioctl: &'static str,
        /// What it failed with.
        source: io::Error,
    },
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the file's name if there is one.
        what: String,
        /// What it failed with.
        source: io::Error,
    },
    /// Input that means nothing.
    #[error("{0}")]
    Input(String),
    /// This host lacks what is needed.
    #[error("{0}")]
    Missing(String),
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// To be used as `.map_err(Error::kvm("KVM_RUN"))`.
    pub fn kvm<E: Into<io::Error>>(ioctl: &'static str) -> impl FnOnce(E) -> Error {
        move |error| Error::Kvm {
            ioctl,
            source: error.into(),
        }
    }

    /// To be used as `.map_err(Error::io("read /proc/cpuinfo"))`.
    pub fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
        let what = what.into();

        move |error| Error::Io {
            what,
            source: error.into(),
        }
    }
}
