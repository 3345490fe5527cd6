// SPDX-License-Identifier: Apache-2.0 OR MIT

//! LLVM's raw profile, version 10, of LLVM 19 and later: see `InstrProfData.inc` in LLVM's
//! compiler-rt. A header of 16 words is followed by the sections.

use anyhow::Result;
use anyhow::ensure;

/// "\xfflprofr\x81", of a 64-bit program, in the byte order of the machine.
const MAGIC: u64 = 0xff6c_7072_6f66_7281;
const VERSION: u64 = 10;
/// The last kind of value profile; the instrumentation for coverage has none.
const LAST_VALUE_KIND: u64 = 2;
/// The size of a function's record in `__llvm_prf_data`.
const RECORD: usize = 64;
const COUNTER: usize = 8;
/// Where the number of counters is in a record.
const COUNTERS_OF_RECORD: usize = 48;

/// A section of the loaded module.
pub struct Section {
    pub address: u64,
    pub bytes: Vec<u8>,
}

/// The sections of a profile.
pub struct Profile {
    pub data: Section,
    pub counters: Section,
    pub names: Section,
}

impl Profile {
    /// The profile as a file.
    ///
    /// Fails if the sections don't fit together, as with a compiler whose records have another
    /// layout.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (data, counters, names) = (&self.data.bytes, &self.counters.bytes, &self.names.bytes);
        let (records, counted) = (data.len() / RECORD, counters.len() / COUNTER);

        ensure!(
            data.len() % RECORD == 0 && counters.len() % COUNTER == 0,
            "{} bytes of records, {} bytes of counters",
            data.len(),
            counters.len()
        );
        let declared: usize = data.chunks_exact(RECORD).map(counters_of).sum();
        ensure!(
            records > 0 && declared == counted,
            "{records} records declare {declared} counters, and there are {counted}: \
             version {VERSION} of the format does not fit"
        );

        let header = [
            MAGIC,
            VERSION,
            // No build IDs.
            0,
            records as u64,
            // No padding around the counters.
            0,
            counted as u64,
            0,
            // No bitmaps, which MC/DC needs.
            0,
            0,
            names.len() as u64,
            // A record refers to its counters relative to itself.
            self.counters.address.wrapping_sub(self.data.address),
            0,
            self.names.address,
            // No virtual tables.
            0,
            0,
            LAST_VALUE_KIND,
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        for section in [data, counters, names] {
            bytes.extend(section);
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(bytes)
    }
}

/// The number of counters that a record declares.
fn counters_of(record: &[u8]) -> usize {
    let mut bytes = [0; 4];

    bytes.copy_from_slice(&record[COUNTERS_OF_RECORD..COUNTERS_OF_RECORD + 4]);
    u32::from_ne_bytes(bytes) as usize
}
