//! Queue of events in an unlinked file, which disappears with the process, even after a crash, and the jobs that use it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use prost::Message;
use rota_proto::v1::Event;

/// What an outbox wants of its file.
#[derive(Debug)]
pub(super) enum SpillWork {
    /// Appends events, given with their sizes.
    Write(VecDeque<(Event, usize)>),
    /// Removes the oldest events: at least one, until they have this many bytes.
    Read(usize),
}

/// Work on the file of an outbox. Blocks as long as the disk does.
#[derive(Debug)]
pub(super) struct SpillJob {
    pub(super) number: u64,
    /// The file, if there is one already.
    pub(super) spill: Option<Spill>,
    /// Directory in which it is created otherwise.
    pub(super) directory: PathBuf,
    pub(super) work: SpillWork,
}

/// Result of a job, with the file unless that cannot be used any more.
#[derive(Debug, Default)]
pub(super) struct SpillDone {
    pub(super) number: u64,
    pub(super) spill: Option<Spill>,
    pub(super) read: Vec<(Event, usize)>,
    pub(super) unwritten: VecDeque<(Event, usize)>,
    pub(super) error: Option<io::Error>,
}

impl SpillJob {
    pub(super) fn run(self) -> SpillDone {
        let Self { number, spill, directory, work } = self;
        match work {
            SpillWork::Write(events) => write(spill, &directory, events, number),
            SpillWork::Read(bytes) => read(spill, bytes, number),
        }
    }
}

fn write(
    spill: Option<Spill>,
    directory: &Path,
    mut events: VecDeque<(Event, usize)>,
    number: u64,
) -> SpillDone {
    let mut spill = match spill.map_or_else(|| Spill::create(directory), Ok) {
        Ok(spill) => spill,
        Err(error) => {
            return SpillDone { number, unwritten: events, error: Some(error), ..SpillDone::default() };
        }
    };
    let mut error = None;
    while let Some((event, _)) = events.front() {
        if let Err(failed) = spill.push(event) {
            error = Some(failed);
            break;
        }
        events.pop_front();
    }
    SpillDone { number, spill: Some(spill), unwritten: events, error, ..SpillDone::default() }
}

fn read(spill: Option<Spill>, bytes: usize, number: u64) -> SpillDone {
    let mut done = SpillDone { number, ..SpillDone::default() };
    let Some(mut spill) = spill else { return done };
    let mut size = 0;
    while size < bytes {
        match spill.pop() {
            Ok(Some(event)) => {
                let length = event.encoded_len();
                size += length;
                done.read.push((event, length));
            }
            Ok(None) => break,
            Err(error) => {
                done.error = Some(error);
                return done;
            }
        }
    }
    done.spill = Some(spill);
    done
}

/// Size of the length prefix of each event.
const HEADER: u64 = 4;

#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    /// Number of events between `head` and `tail`.
    events: i64,
    head: u64,
    tail: u64,
}

impl Spill {
    fn create(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, events: 0, head: 0, tail: 0 })
    }

    /// Number of events in the file.
    pub(super) fn len(&self) -> i64 {
        self.events
    }

    /// Size of the file, which is truncated when the queue runs empty.
    pub(super) fn size(&self) -> u64 {
        self.tail
    }

    fn push(&mut self, event: &Event) -> io::Result<()> {
        let bytes = event.encode_to_vec();
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.file.write_all_at(&length.to_le_bytes(), self.tail)?;
        self.file.write_all_at(&bytes, self.tail + HEADER)?;
        // Advanced last, so that a partial write is overwritten.
        self.tail += HEADER + u64::from(length);
        self.events += 1;
        Ok(())
    }

    fn pop(&mut self) -> io::Result<Option<Event>> {
        if self.events == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.head)?;
        let length = u32::from_le_bytes(length);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.head + HEADER)?;
        let event = Event::decode(bytes.as_slice())?;
        self.head += HEADER + u64::from(length);
        self.events -= 1;
        if self.events == 0 {
            (self.head, self.tail) = (0, 0);
            // Its space is reused otherwise.
            let _ = self.file.set_len(0);
        }
        Ok(Some(event))
    }
}
