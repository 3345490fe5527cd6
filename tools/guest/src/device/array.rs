// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Arrays that structures point to.

use std::marker::PhantomData;

use rustix::io;

use super::uapi::Members;
use crate::memory::Mapping;
use crate::memory::UserPtr;

/// An array in user memory. Right after its last element, memory ends.
#[derive(Debug)]
pub struct Array<T> {
    /// The memory, e.g. to protect it.
    pub memory: Mapping,
    offset: usize,
    elements: PhantomData<T>,
}

impl<T: Members + Default> Array<T> {
    /// An array of these elements.
    pub fn new(elements: &[T]) -> io::Result<Self> {
        let bytes: Vec<u8> = elements.iter().flat_map(Members::to_bytes).collect();
        let mut memory = Mapping::new(bytes.len())?;
        let offset = memory.length() - bytes.len();

        memory.write(offset, &bytes);
        Ok(Array {
            memory,
            offset,
            elements: PhantomData,
        })
    }

    /// An array with room for results: all bytes are 0.
    pub fn room(count: usize) -> io::Result<Self> {
        let memory = Mapping::new(count * T::SIZE)?;

        Ok(Array {
            offset: memory.length() - count * T::SIZE,
            memory,
            elements: PhantomData,
        })
    }

    /// The address of the first element.
    pub fn at(&self) -> UserPtr<'_> {
        self.memory.at(self.offset)
    }

    /// The first elements.
    ///
    /// Panics if there are fewer.
    pub fn read(&self, count: usize) -> Vec<T> {
        self.memory
            .read(self.offset, count * T::SIZE)
            .chunks(T::SIZE)
            .map(|bytes| {
                let mut element = T::default();

                element.update(bytes);
                element
            })
            .collect()
    }
}
