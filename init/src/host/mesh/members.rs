//! `kubeboot members` asks, the mesh's thread answers: a socket of the machine's own, one JSON document a connection.

use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::exit::Exit;
use crate::host::files;
use crate::host::root::Root;
use crate::mesh::view::View;
use crate::operators::Trouble;
use crate::paths;
use crate::words::members::{Nothing, nothing};

/// Who is answered at once.
const ANSWERS: usize = 4;
/// How long who asked may take to read, and who asks waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer at most: 8,192 members, each with every field as long as it may be.
const MOST: u64 = 8 << 20;
/// The stack of a thread that writes an answer.
const STACK: usize = 64 << 10;

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody listens there.
    #[error("the agent does not run, or has not begun with the mesh")]
    NoAgent,
    /// The socket is root's.
    #[error("only root may ask the agent")]
    NotRoot,
    /// Something else.
    #[error("ask the agent by {}: {error}", paths::MEMBERS_SOCKET)]
    Failed {
        /// What the system said, or what is wrong with the answer.
        error: io::Error,
    },
}

/// The socket of the mesh's thread; its file goes with it.
pub(super) struct Answering {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Held once by each thread that writes an answer.
    busy: Arc<()>,
}

impl Answering {
    /// Listens in the place of what was there.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The unit's umask has kept others out from the beginning.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Answering { listener, path: path.to_owned(), busy: Arc::new(()) })
    }

    /// Answers whoever asks now. A slow reader holds up a thread of its own, not the mesh.
    pub(super) fn answer(&self, view: impl Fn() -> View) {
        while let Ok((asker, _)) = self.listener.accept() {
            if Arc::strong_count(&self.busy) > ANSWERS {
                continue;
            }
            let (text, place) = (serde_json::to_vec(&view()).unwrap_or_default(), self.busy.clone());
            let write = move || {
                let _place = place;
                let _ = tell(asker, &text);
            };
            let thread = std::thread::Builder::new().name("members".to_owned()).stack_size(STACK);
            // Without a thread who asked hears the end of the stream, and says so.
            let _ = thread.spawn(write);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn tell(mut asker: UnixStream, text: &[u8]) -> io::Result<()> {
    asker.set_nonblocking(false)?;
    asker.set_write_timeout(Some(PATIENCE))?;
    asker.write_all(text)
}

/// Asks the agent that runs on this machine.
///
/// # Errors
/// [`Unanswered`].
pub fn ask(root: &Root) -> Result<View, Unanswered> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Unanswered::NoAgent,
        ErrorKind::PermissionDenied => Unanswered::NotRoot,
        _ => Unanswered::Failed { error },
    };
    let agent = UnixStream::connect(root.path(paths::MEMBERS_SOCKET)).map_err(failed)?;
    let mut text = Vec::new();
    agent.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    agent.take(MOST).read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| Unanswered::Failed { error: error.into() })
}

/// The mesh as this machine's agent sees it.
///
/// # Errors
/// Why there is nothing to show, for people.
pub fn view(root: &Root) -> Result<View, Trouble> {
    ask(root).map_err(|unanswered| {
        let why = match unanswered {
            // Frozen settings say that a machine is a node. Who may not look at them is told to be root.
            Unanswered::NoAgent if !files::exists(&root.path(paths::FROZEN)) && is_readable(root) => Nothing::NoNode,
            Unanswered::NoAgent if !is_readable(root) => Nothing::NotRoot,
            Unanswered::NoAgent => Nothing::NoAgent,
            Unanswered::NotRoot => Nothing::NotRoot,
            Unanswered::Failed { .. } => Nothing::Failed(unanswered.to_string()),
        };
        let exit = if why == Nothing::NoNode { Exit::NoRole } else { Exit::Failure };
        Trouble::of(exit, nothing(&why))
    })
}

/// Whether kubeboot's state can be looked at, or is not there at all.
fn is_readable(root: &Root) -> bool {
    let folder = root.path(paths::STATE);
    !files::exists(&folder) || files::list(&folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_no_node_and_one_without_an_agent_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let trouble = view(&root).unwrap_err();
        assert_eq!(trouble, Trouble::of(Exit::NoRole, nothing(&Nothing::NoNode)));
        let frozen = root.path(paths::FROZEN);
        create_all(frozen.parent().unwrap());
        files::write_volatile(&frozen, b"{}", 0o600).unwrap();
        let trouble = view(&root).unwrap_err();
        assert_eq!(trouble, Trouble::of(Exit::Failure, nothing(&Nothing::NoAgent)));
    }

    fn create_all(folder: &std::path::Path) {
        let mut made: Vec<_> = folder.ancestors().collect();
        made.reverse();
        made.iter().for_each(|folder| files::make_folder(folder, 0o700).unwrap());
    }
}
