//! The management console of user-mode Linux: a request and a reply as datagrams on a Unix socket.
//!
//! Source: Linux, `arch/um/drivers/mconsole.h`.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const MAGIC: u32 = 0xcafe_babe;
const VERSION: u32 = 2;
/// Size of the data field of a request and of a reply, in bytes.
const DATA: usize = 512;

/// Sends a command and waits for it to be accepted.
///
/// # Errors
/// There is no such socket, no reply within ten seconds, or the reply is a refusal.
pub fn send(socket: &Path, command: &str) -> Result<()> {
    let folder = socket.parent().context("the socket has no folder")?;
    let reply_to = folder.join(format!("reply-{}", std::process::id()));
    let _ = std::fs::remove_file(&reply_to);
    let ours = UnixDatagram::bind(&reply_to).with_context(|| format!("can't bind {}", reply_to.display()))?;
    ours.set_read_timeout(Some(Duration::from_secs(10))).context("can't set a deadline")?;
    let result = exchange(&ours, socket, command);
    let _ = std::fs::remove_file(&reply_to);
    result
}

fn exchange(ours: &UnixDatagram, socket: &Path, command: &str) -> Result<()> {
    ours.send_to(&request(command)?, socket).with_context(|| format!("can't send to {}", socket.display()))?;
    let mut buffer = [0; 12 + DATA];
    let count = ours.recv(&mut buffer).with_context(|| format!("no reply to {command:?}"))?;
    let word = |at: usize| u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
    ensure!(count >= 12, "the reply to {command:?} has {count} bytes, fewer than its header's 12");
    if word(0) != 0 {
        let said = &buffer[12..count.min(12 + word(8) as usize)];
        bail!("{command:?} was refused: {}", String::from_utf8_lossy(said));
    }
    Ok(())
}

/// `struct mconsole_request`: magic, version, length, and a data field of fixed size.
fn request(command: &str) -> Result<Vec<u8>> {
    ensure!(command.len() < DATA, "the command {command:?} is longer than {} bytes", DATA - 1);
    let length = u32::try_from(command.len())?;
    let mut request = Vec::with_capacity(12 + DATA);
    for word in [MAGIC, VERSION, length] {
        request.extend_from_slice(&word.to_le_bytes());
    }
    request.extend_from_slice(command.as_bytes());
    request.resize(12 + DATA, 0);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reply: &'static [u8]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("mconsole");
        let machine = UnixDatagram::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            let (count, from) = machine.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..15], b"\xbe\xba\xfe\xca\x02\0\0\0\x03\0\0\0cad");
            assert_eq!(count, 524);
            machine.send_to(reply, from.as_pathname().unwrap()).unwrap();
        });
        let result = send(&socket, "cad");
        server.join().unwrap();
        result
    }

    #[test]
    fn an_accepted_command_succeeds() {
        answer(&[0; 12]).unwrap();
    }

    #[test]
    fn a_refusal_is_told() {
        let error = answer(b"\x01\0\0\0\0\0\0\0\x02\0\0\0no").unwrap_err();
        assert!(error.to_string().contains("refused: no"), "{error}");
    }
}
