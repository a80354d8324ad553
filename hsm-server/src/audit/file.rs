//! The log in a folder: `audit-00000000000000000001.log` and its successors, and `head`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    chain::HEAD,
    error::Error,
    sink::{AuditSink, AuditSource},
};

const HEAD_FILE: &str = "head";
/// What Linux calls this run of the machine: random, and the same for every process until the next start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A folder that is only read, while its writer may be at work.
#[derive(Clone, Debug)]
pub struct FileSource {
    folder: PathBuf,
}

impl FileSource {
    /// The log in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.folder.join(format!("audit-{first:020}.log"))
    }

    fn head(&self) -> PathBuf {
        self.folder.join(HEAD_FILE)
    }
}

/// The number in the name of a segment; none for any other file.
fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(".log")?;
    let whole = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    whole.then(|| digits.parse().ok()).flatten()
}

impl AuditSource for FileSource {
    fn segments(&self) -> Result<Vec<u64>, Error> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))? {
            let name = entry.map_err(failed("list", &self.folder))?.file_name();
            segments.extend(name.to_str().and_then(segment_number));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn length(&self, segment: u64) -> Result<u64, Error> {
        let file = self.segment(segment);
        Ok(fs::metadata(&file).map_err(failed("read", &file))?.len())
    }

    fn read(&self, segment: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let file = self.segment(segment);
        File::open(&file).and_then(|opened| opened.read_at(buffer, offset)).map_err(failed("read", &file))
    }

    fn read_head(&self) -> Result<Option<[u8; HEAD]>, Error> {
        let file = self.head();
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &file)(error)),
        };
        match <[u8; HEAD]>::try_from(bytes) {
            Ok(head) => Ok(Some(head)),
            Err(bytes) if bytes.is_empty() => Ok(None),
            Err(_) => Err(Error::HeadChanged),
        }
    }
}

/// A folder with its one writer.
#[derive(Debug)]
pub struct FileSink {
    source: FileSource,
    /// Locked as long as it is open.
    head: File,
    boot: [u8; 16],
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

impl FileSink {
    /// Makes the folder, of mode 0700, if there is none, and opens it.
    ///
    /// # Errors
    /// `InUse`, `Io`.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                sync_folder(parent.unwrap_or_else(|| Path::new(".")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", folder)(error)),
        }
        Self::open(folder)
    }

    /// Opens the folder and locks it for this process.
    ///
    /// # Errors
    /// `Missing`, `InUse`, `Io`.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        if !folder.is_dir() {
            return Err(Error::Missing { folder: folder.to_path_buf() });
        }
        let source = FileSource::new(folder);
        let path = source.head();
        let head = private(&path).map_err(failed("open", &path))?;
        match flock(&head, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::InUse { folder: folder.to_path_buf() }),
            Err(error) => return Err(failed("lock", &path)(error.into())),
        }
        sync_folder(folder)?;
        Ok(Self { source, head, boot: boot_id()?, current: Mutex::new(None) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a file for its owner only, and makes it if there is none.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn boot_id() -> Result<[u8; 16], Error> {
    let path = Path::new(BOOT_ID);
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16)
        .map_err(|error| failed("understand", path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(number.to_be_bytes())
}

fn failed(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_path_buf();
    move |error| Error::Io { what, file, error }
}

impl AuditSource for FileSink {
    fn segments(&self) -> Result<Vec<u64>, Error> {
        self.source.segments()
    }

    fn length(&self, segment: u64) -> Result<u64, Error> {
        self.source.length(segment)
    }

    fn read(&self, segment: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.source.read(segment, offset, buffer)
    }

    fn read_head(&self) -> Result<Option<[u8; HEAD]>, Error> {
        self.source.read_head()
    }
}

impl AuditSink for FileSink {
    fn boot(&self) -> [u8; 16] {
        self.boot
    }

    fn start(&self, segment: u64, length: u64) -> Result<(), Error> {
        let path = self.source.segment(segment);
        let file = private(&path).map_err(failed("open", &path))?;
        file.set_len(length).map_err(failed("cut", &path))?;
        sync_folder(&self.source.folder)?;
        *self.lock() = Some(Current { file: Arc::new(file), path, length });
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut current = self.lock();
        let Some(Current { file, path, length }) = &mut *current else {
            return Err(failed("write", &self.source.folder)(io::Error::other("no segment was started")));
        };
        if let Err(error) = file.write_all_at(bytes, *length) {
            if let Err(cut) = file.set_len(*length) {
                tracing::error!(file = %path.display(), %cut, "the end of the segment stays torn");
            }
            return Err(failed("write", path)(error));
        }
        *length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        // Not under the lock: others go on appending.
        let current = self.lock().as_ref().map(|current| (Arc::clone(&current.file), current.path.clone()));
        match current {
            Some((file, path)) => file.sync_data().map_err(failed("sync", &path)),
            None => Ok(()),
        }
    }

    fn write_head(&self, head: &[u8; HEAD]) -> Result<(), Error> {
        // One write within one sector: whole or not at all.
        self.head.write_all_at(head, 0).map_err(|error| failed("write", &self.source.head())(error))
    }

    fn sync_head(&self) -> Result<(), Error> {
        self.head.sync_data().map_err(|error| failed("sync", &self.source.head())(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_segments_are_read() {
        assert_eq!(segment_number("audit-00000000000000000042.log"), Some(42));
        for other in
            ["audit-42.log", "audit-+0000000000000000042.log", "audit-00000000000000000042.log~", "head"]
        {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }
}
