//! Reports are written whole or not at all, and for their owner only: they say where a token is weak. What the command line
//! names is read with a bound.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// The file that is always empty, whatever is written to it.
const NOTHING: &str = "/dev/null";

/// Reads an ordinary file of at most so many bytes, or the empty one of the system. It may hold a secret.
///
/// # Errors
/// A sentence, when it cannot be read, is longer, or is a device or a pipe: such has no end, or not the same for each of
/// the processes that read it.
pub fn read(file: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let there = fs::metadata(file).map_err(|error| told(&error))?;
    if !there.is_file() && is_kept(file) {
        return Err(told(&"an ordinary file is needed; each process of the suite reads it"));
    }
    // Memory for all of it at once, so that no part of it stays elsewhere.
    let room = usize::try_from(there.len().min(most)).map_err(|error| told(&error))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    let opened = File::open(file).map_err(|error| told(&error))?;
    opened.take(most + 1).read_to_end(&mut bytes).map_err(|error| told(&error))?;
    if bytes.len() as u64 > most {
        return Err(told(&format!("more than {most} bytes, which is too long for what it is")));
    }
    Ok(bytes)
}

/// Where a name leads, whether something is there or not, and however the name is written.
pub fn place(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| {
        let folder = fs::canonicalize(folder_of(file));
        let name = file.file_name().unwrap_or_default();
        folder.map_or_else(|_| file.to_owned(), |folder| folder.join(name))
    })
}

/// The folder in which a file is.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether what is written there is kept.
pub fn is_kept(place: &Path) -> bool {
    place != Path::new(NOTHING)
}

/// Writes a file under another name, which only the user may read, and gives it its own. What is no ordinary file, such as
/// `/dev/stdout`, is written as it is.
///
/// # Errors
/// A sentence, when the file cannot be written. What was there before is still there then.
pub fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return fs::write(file, bytes).map_err(|error| told(&error));
    }
    // A name that leads elsewhere goes on leading there.
    let place = place(file);
    let folder = folder_of(&place);
    let mut new = NamedTempFile::new_in(folder).map_err(|error| told(&error))?;
    new.write_all(bytes).map_err(|error| told(&error))?;
    new.as_file().sync_all().map_err(|error| told(&error))?;
    new.persist(&place).map(|_| ()).map_err(|error| told(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn what_is_read_is_an_ordinary_file_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pin");
        fs::write(&file, "1234").unwrap();
        assert_eq!(read(&file, 4).unwrap().as_slice(), b"1234");
        assert!(read(&file, 3).unwrap_err().contains("more than 3 bytes"));
        assert!(read(Path::new(NOTHING), 4).unwrap().is_empty());
        assert!(read(Path::new("/dev/zero"), 4).unwrap_err().contains("an ordinary file"));
    }

    #[test]
    fn a_report_is_its_owners_and_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("report"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        symlink(&file, &link).unwrap();
        write(&link, b"after").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"after");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(write(&folder.path().join("no-folder/report"), b"").unwrap_err().contains("no-folder"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else stays");
    }
}
