//! Reports are written whole or not at all, and for their owner only: they say where a token is weak.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

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
    let place = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
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
