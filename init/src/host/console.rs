//! The console: what a person in front of the machine sees and types, even when nobody is logged in.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::report::write_patiently;
use super::root::Root;
use crate::words::Paint;

/// Longest line that is read, in bytes; the rest of a longer one is dropped.
const LINE: usize = 512;

/// Where words go. As a service they go to standard output, which is the journal, and to `/dev/console`. Run by a person
/// in a terminal they go to that terminal only.
pub struct Console {
    device: Option<File>,
    terminal: bool,
    /// Whether a person types at standard input.
    interactive: bool,
    /// Texts for the screen that wait, once they do.
    held: Option<String>,
}

/// Whether a person types at this process's standard input.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

impl Console {
    /// Opens the console. Never fails: a boot must not stop because nobody can be told of it.
    pub fn open(root: &Root) -> Self {
        let terminal = io::stdout().is_terminal();
        let device = if terminal { None } else { open(root).ok() };
        Console { device, terminal, interactive: is_interactive(), held: None }
    }

    /// Tests: only the screen, whatever standard input and output are.
    #[cfg(test)]
    pub(crate) fn on_screen(root: &Root) -> Self {
        Console { device: open(root).ok(), terminal: false, interactive: false, held: None }
    }

    /// From now on texts for the screen wait; the journal gets them all the same. Run by a person nothing waits.
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Shows what waits, and lets later texts through.
    pub fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.write(&held);
        }
    }

    /// Forgets what waits.
    pub fn forget_held(&mut self) {
        self.held = None;
    }

    /// How texts for [`Console::say`]'s two ends are painted: for the journal, then for the screen.
    fn paints(&self) -> (Paint, Paint) {
        let screen = self.terminal || self.device.as_ref().is_some_and(IsTerminal::is_terminal);
        let color = |yes| if yes { Paint::Color } else { Paint::Plain };
        (color(self.terminal), color(screen))
    }

    /// Shows a text, painted for each place that it goes to, with a newline at its end if it has none.
    pub fn say(&mut self, text: impl Fn(Paint) -> String) {
        let (out, screen) = self.paints();
        // Standard output that is gone (the journal restarts) is no reason to stop.
        let _ = io::stdout().write_all(ended(text(out)).as_bytes());
        self.show(&ended(text(screen)));
    }

    /// Shows a secret: on the screen only, never in the journal.
    pub fn say_secret(&mut self, text: impl Fn(Paint) -> Zeroizing<String>) {
        let (_, screen) = self.paints();
        let text = text(screen);
        if self.terminal {
            let _ = io::stdout().write_all(text.as_bytes());
        }
        // No copy of a secret waits.
        self.release();
        self.write(&text);
    }

    fn show(&mut self, text: &str) {
        match &mut self.held {
            Some(held) => held.push_str(text),
            None => self.write(text),
        }
    }

    fn write(&mut self, text: &str) {
        if let Some(device) = &mut self.device
            && write_patiently(device, text.as_bytes()).is_err()
        {
            self.device = None;
        }
    }

    /// Asks for one line. None at the end of the input, or when there is nobody to ask.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn ask(&mut self, question: &str) -> io::Result<Option<Zeroizing<String>>> {
        self.read(question, |_| None)
    }

    /// The same for a secret: what is typed is not shown. Serial consoles are recorded, by clouds and by terminals.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn ask_secret(&mut self, question: &str) -> io::Result<Option<Zeroizing<String>>> {
        self.read(question, |terminal| Silence::of(terminal).ok())
    }

    /// `quiet` is in force before the question is seen, as answers may come at once.
    fn read(
        &mut self,
        question: &str,
        quiet: impl Fn(BorrowedFd<'_>) -> Option<Silence<'_>>,
    ) -> io::Result<Option<Zeroizing<String>>> {
        if self.interactive {
            let (stdin, mut out) = (io::stdin(), io::stdout());
            let _quiet = quiet(stdin.as_fd());
            out.write_all(question.as_bytes()).and_then(|()| out.flush())?;
            return read_line(&mut stdin.lock());
        }
        let Some(device) = &mut self.device else { return Ok(None) };
        let terminal = device.try_clone()?;
        let _quiet = quiet(terminal.as_fd());
        write_patiently(device, question.as_bytes())?;
        // From here on a read has to wait for the person.
        let flags = nix::fcntl::OFlag::empty();
        nix::fcntl::fcntl(&*device, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        read_line(device)
    }
}

/// A terminal that does not show what is typed, but for the end of a line. It does again when this is dropped; after a signal
/// that ends the process it is the shell's or systemd's to put right (`TTYReset=`).
struct Silence<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn of(terminal: BorrowedFd<'a>) -> nix::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.insert(LocalFlags::ECHONL);
        // At once: output that waits for a stuck serial line must not stop the question.
        tcsetattr(terminal, SetArg::TCSANOW, &silent)?;
        Ok(Silence { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing.
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn open(root: &Root) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(root.path("/dev/console"))
}

/// Reads up to a newline, keeping the first [`LINE`] bytes; what is no text is replaced.
fn read_line(from: &mut impl io::Read) -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE));
    let mut byte = [0; 1];
    loop {
        match from.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() < LINE => line.push(byte[0]),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Zeroizing::new(typed(&String::from_utf8_lossy(&line)))))
}

/// What a person typed: without the sequences that arrow keys and a terminal's answers to systemd's questions leave in
/// the input (ECMA-48, `ESC [ … letter`, `ESC O letter`), and without other control characters.
fn typed(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            match characters.next() {
                Some('[') => _ = characters.find(|c| ('@'..='~').contains(c)),
                Some('O') => _ = characters.next(),
                _ => {}
            }
        } else if !character.is_control() {
            out.push(character);
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::host::sample::machine;

    #[test]
    fn lines_are_bounded_and_trimmed() {
        let long = format!("{}\n  init \r\nlast", "x".repeat(10_000));
        let mut from = long.as_bytes();
        let mut next = || read_line(&mut from).unwrap().map(|line| line.as_str().to_owned());
        assert_eq!(next().map(|line| line.len()), Some(LINE));
        assert_eq!(next().as_deref(), Some("init"));
        assert_eq!(next().as_deref(), Some("last"));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_a_terminal_answers_is_not_what_a_person_typed() {
        assert_eq!(typed("\x1b[24;80Rinit\x1b[A\x07"), "init");
        assert_eq!(typed("\x1b[24;80"), "");
        assert_eq!(typed("\x1bOPinit"), "init");
    }

    /// A console that is a terminal, and who sits there.
    fn terminal() -> (tempfile::TempDir, Root, File) {
        let pty = nix::pty::openpty(None, None).unwrap();
        let (folder, root) = machine();
        let name = nix::unistd::ttyname(&pty.slave).unwrap();
        std::os::unix::fs::symlink(name, folder.path().join("dev/console")).unwrap();
        (folder, root, File::from(pty.master))
    }

    /// What the screen shows until it has this text.
    fn shown(screen: &mut File, end: &str) -> String {
        let (mut text, mut buffer) = (String::new(), [0; 64]);
        while !text.contains(end) {
            let mut readable = [PollFd::new(screen.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut readable, PollTimeout::from(20_000u16)), Ok(1), "waited for {end:?}, saw {text:?}");
            let count = io::Read::read(screen, &mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        text
    }

    #[test]
    fn a_secret_that_is_typed_is_not_shown_and_other_answers_are() {
        let (_folder, root, mut screen) = terminal();
        let mut console = Console::on_screen(&root);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let secret = console.ask_secret("token: ").unwrap();
                (secret, console.ask("name: ").unwrap())
            });
            assert_eq!(shown(&mut screen, "token: "), "token: ");
            screen.write_all(b"kb1w-secret\n").unwrap();
            let seen = shown(&mut screen, "name: ");
            assert!(!seen.contains("secret"), "{seen:?}");
            screen.write_all(b"w-1\n").unwrap();
            shown(&mut screen, "w-1");
            let (secret, name) = asking.join().unwrap();
            assert_eq!((secret.unwrap().as_str(), name.unwrap().as_str()), ("kb1w-secret", "w-1"));
        });
    }

    #[test]
    fn words_reach_the_console_plain_when_it_is_no_terminal() {
        let (_folder, root) = machine();
        std::fs::write(root.path("/dev/console"), "").unwrap();
        let mut console = Console::on_screen(&root);
        console.say(|paint| paint.tone(crate::words::Tone::Good, "[done] it"));
        console.say_secret(|_| Zeroizing::new("secret\n".to_owned()));
        assert_eq!(std::fs::read_to_string(root.path("/dev/console")).unwrap(), "[done] it\nsecret\n");
    }
}
