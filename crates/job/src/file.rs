//! Files that Genfleet writes. Only the owner, and at most the group, may read a new file. A path that ends in a
//! symbolic link is refused, because a user who may create links in the folder could redirect the output to any file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// The mode of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For jobs, secrets or the state of a process.
    Private = 0o600,
    /// A group of operators may read it: audit files and events.
    GroupReads = 0o640,
    /// For published content.
    Public = 0o644,
}

/// Returns `path` with `suffix` appended to its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens the file at `path`; a new one gets `mode`. Refuses a symbolic link.
pub fn open(path: &Path, options: &OpenOptions, mode: Mode) -> io::Result<File> {
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    options
        .clone()
        .mode(mode as u32)
        .custom_flags(no_link)
        .open(path)
        .map_err(|error| refuse_link(path).err().unwrap_or(error))
}

/// Like [`open`], but follows a link to a device, a pipe, or the process's stdout or stderr (`/dev/stdout`).
pub fn open_or_stream(path: &Path, options: &OpenOptions, mode: Mode) -> io::Result<File> {
    let refused = match open(path, options, mode) {
        Err(refused) if is_link(path) => refused,
        opened => return opened,
    };
    // Nothing is created or written before the type of the file is known.
    match options.clone().create(false).open(path) {
        Ok(file) if is_stream(&file)? => Ok(file),
        _ => Err(refused),
    }
}

/// Returns an error if `path` is a symbolic link.
pub fn refuse_link(path: &Path) -> io::Result<()> {
    if !is_link(path) {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::other(format!("{path} is a symbolic link, which is not followed: name the file itself")))
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn is_stream(file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    let kind = found.file_type();
    let is_ours = |stream: BorrowedFd<'_>| -> io::Result<bool> {
        let ours = File::from(stream.try_clone_to_owned()?).metadata()?;
        Ok((ours.dev(), ours.ino()) == (found.dev(), found.ino()))
    };
    Ok(kind.is_char_device() || kind.is_fifo() || is_ours(io::stdout().as_fd())? || is_ours(io::stderr().as_fd())?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::{PermissionsExt, symlink},
        path::PathBuf,
    };

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("genfleet-file-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn appending() -> OpenOptions {
        File::options().append(true).create(true).clone()
    }

    #[test]
    fn what_is_made_has_its_mode_and_what_is_there_keeps_its_own() {
        let folder = Folder::new();
        for mode in [Mode::Private, Mode::GroupReads] {
            let path = folder.0.join(format!("{mode:?}"));
            let made = open(&path, &appending(), mode).unwrap().metadata().unwrap().mode();
            assert_eq!(made & 0o7777 & !(mode as u32), 0, "{made:o}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
            assert_eq!(open(&path, &appending(), mode).unwrap().metadata().unwrap().mode() & 0o7777, 0o604);
        }
    }

    #[test]
    fn a_link_to_a_file_is_refused_by_name_and_nothing_is_made_or_written() {
        let folder = Folder::new();
        let (there, missing) = (folder.0.join("there"), folder.0.join("missing"));
        fs::write(&there, "theirs").unwrap();
        for target in [&there, &missing] {
            let link = folder.0.join("link");
            symlink(target, &link).unwrap();
            let truncating = File::options().write(true).create(true).truncate(true).clone();
            let opened = [
                open(&link, &appending(), Mode::Private),
                open(&link, &truncating, Mode::Private),
                open_or_stream(&link, &appending(), Mode::Private),
            ];
            for reported in opened.map(|opened| opened.unwrap_err().to_string()) {
                assert!(reported.contains("link is a symbolic link"), "{reported}");
            }
            fs::remove_file(&link).unwrap();
        }
        assert_eq!((fs::read_to_string(&there).unwrap().as_str(), missing.exists()), ("theirs", false));
    }

    #[test]
    fn a_link_to_a_device_a_pipe_or_a_stream_of_this_process_is_followed_where_that_is_asked_for() {
        let folder = Folder::new();
        let link = folder.0.join("null");
        symlink("/dev/null", &link).unwrap();
        open_or_stream(&link, &appending(), Mode::Private).unwrap().write_all(b"x").unwrap();
        assert!(open(&link, &appending(), Mode::Private).is_err());
        assert!(is_stream(&File::from(io::stdout().as_fd().try_clone_to_owned().unwrap())).unwrap());
        let (reader, _writer) = io::pipe().unwrap();
        assert!(is_stream(&File::from(std::os::fd::OwnedFd::from(reader))).unwrap());
    }
}
