//! Queue of events in an unlinked file, which disappears with the process, even after a crash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use prost::Message;
use rota_proto::v1::Event;

/// Size of the length prefix of each event.
const HEADER: u64 = 4;

#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    head: u64,
    tail: u64,
}

impl Spill {
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, head: 0, tail: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Size of the file, which is truncated when the queue runs empty.
    pub(super) fn size(&self) -> u64 {
        self.tail
    }

    pub(super) fn push(&mut self, event: &Event) -> io::Result<()> {
        let bytes = event.encode_to_vec();
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.file.write_all_at(&length.to_le_bytes(), self.tail)?;
        self.file.write_all_at(&bytes, self.tail + HEADER)?;
        // Advanced last, so that a partial write is overwritten.
        self.tail += HEADER + u64::from(length);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> io::Result<Option<Event>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.head)?;
        let length = u32::from_le_bytes(length);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.head + HEADER)?;
        self.head += HEADER + u64::from(length);
        if self.is_empty() {
            self.file.set_len(0)?;
            (self.head, self.tail) = (0, 0);
        }
        Ok(Some(Event::decode(bytes.as_slice())?))
    }
}
