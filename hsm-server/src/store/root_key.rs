//! The root key in a file: 32 bytes, raw or in hexadecimal, for its owner's eyes only.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use strongroom_shared::secret::Secret;
use zeroize::Zeroizing;

use super::{Random, files, path::hex};

/// Longer than any form of a key: hexadecimal with a line end.
const LONGEST: u64 = 80;

/// Reads a root key: 32 raw bytes, or 64 hexadecimal digits with or without a line end.
///
/// # Errors
/// `Missing`, `Exposed` if the file's group or others have any permission, `Form` if it holds anything else,
/// `Io`.
pub fn read(file: &Path) -> Result<Secret<[u8; 32]>, Error> {
    // A pipe must not keep the server waiting.
    let opened =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(file);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing { file: file.to_path_buf() });
        }
        Err(error) => return Err(failed("open", file)(error)),
    };
    if !opened.metadata().map_err(failed("read", file))?.is_file() {
        return Err(Error::Form { file: file.to_path_buf() });
    }
    if let Some(mode) = files::exposed(&opened).map_err(failed("read", file))? {
        return Err(Error::Exposed { file: file.to_path_buf(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize));
    opened.take(LONGEST).read_to_end(&mut bytes).map_err(failed("read", file))?;
    parse(&bytes).ok_or_else(|| Error::Form { file: file.to_path_buf() })
}

fn parse(bytes: &[u8]) -> Option<Secret<[u8; 32]>> {
    if let Ok(raw) = bytes.try_into() {
        return Some(Secret::new(raw));
    }
    let text = std::str::from_utf8(bytes).ok()?;
    hex(text.trim_end_matches(['\r', '\n'])).map(Secret::new)
}

/// Makes a random root key and writes it, in hexadecimal, to a new file of mode 0600; on disk when it
/// returns.
///
/// # Errors
/// `Exists` if there is a file of that name, which is left alone; `Io`.
pub fn create(file: &Path, random: &Random) -> Result<Secret<[u8; 32]>, Error> {
    let mut key = Zeroizing::new([0; 32]);
    random(key.as_mut());
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in key.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
    text.push('\n');
    // Written under another name first: a key file is there whole, or not at all.
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    write(&draft, text.as_bytes()).map_err(failed("write", &draft))?;
    match renameat_with(CWD, &draft, CWD, file, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            std::fs::remove_file(&draft).map_err(failed("remove", &draft))?;
            return Err(Error::Exists { file: file.to_path_buf() });
        }
        Err(error) => return Err(failed("create", file)(error.into())),
    }
    files::sync_folder(file).map_err(failed("sync the folder of", file))?;
    Ok(Secret::new(*key))
}

fn write(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_path_buf();
    move |error| Error::Io { what, file, error }
}

/// Why there is no root key.
#[derive(Debug)]
pub enum Error {
    /// There is no file.
    Missing {
        /// Where it should be.
        file: PathBuf,
    },
    /// There already is a file.
    Exists {
        /// Which.
        file: PathBuf,
    },
    /// Others than its owner may read or write it.
    Exposed {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    Form {
        /// The file.
        file: PathBuf,
    },
    /// The operating system refused.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        file: PathBuf,
        /// Its reason.
        error: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file } => write!(f, "there is no root key at {}", file.display()),
            Self::Exists { file } => {
                write!(
                    f,
                    "{} exists; a root key is never overwritten, for its store would be lost",
                    file.display()
                )
            }
            Self::Exposed { file, mode } => write!(
                f,
                "the root key {} may be read or written by others (mode {mode:04o}): run chmod 600 on it, and \
                 think about who has read it",
                file.display()
            ),
            Self::Form { file } => write!(
                f,
                "{} is not a root key: that is 32 bytes, or 64 hexadecimal digits in one line",
                file.display()
            ),
            Self::Io { what, file, error } => write!(f, "cannot {what} {}: {error}", file.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Missing { .. } | Self::Exists { .. } | Self::Exposed { .. } | Self::Form { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn random() -> Random {
        Box::new(|bytes| bytes.iter_mut().zip(0..).for_each(|(byte, n)| *byte = 0xf0 ^ n))
    }

    #[test]
    fn a_new_key_reads_back_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.key");
        let made = create(&file, &random()).unwrap();
        assert_eq!(read(&file).unwrap().expose(), made.expose());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.key");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(create(&file, &random()), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn both_forms_are_read_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.key");
        let put = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
            let result = read(&file);
            fs::remove_file(&file).unwrap();
            result
        };
        assert_eq!(put(&[0xab; 32]).unwrap().expose(), &[0xab; 32]);
        assert_eq!(put("aB".repeat(32).as_bytes()).unwrap().expose(), &[0xab; 32]);
        assert_eq!(put(format!("{}\n", "ab".repeat(32)).as_bytes()).unwrap().expose(), &[0xab; 32]);
        for wrong in [&b""[..], &[1; 31], &[1; 33], &[b'a'; 63], &[b'a'; 65], &[b'g'; 64], &[b'a'; 1000]] {
            assert!(matches!(put(wrong), Err(Error::Form { .. })), "{} bytes", wrong.len());
        }
    }

    #[test]
    fn a_missing_exposed_or_odd_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.key");
        assert!(matches!(read(&file), Err(Error::Missing { .. })));
        assert!(matches!(read(folder.path()), Err(Error::Form { .. })));
        fs::write(&file, [1; 32]).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&file), Err(Error::Exposed { mode: found, .. }) if found == mode));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&file).is_ok());
    }
}
