//! The members of a tar archive (POSIX.1-1988 ustar, GNU tar, and pax headers that say nothing of name or size), read so
//! that Go's archive/tar finds the same members, or refused.

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use super::Refused;

/// Most members of an archive that are looked at.
const MEMBERS: usize = 10_000;
/// Largest pax header that is read, in bytes.
const PAX: u64 = 64 << 10;
/// Length of a header, and of the blocks that contents are padded to.
const BLOCK: u64 = 512;
/// A header.
type Block = [u8; BLOCK as usize];

/// One member.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its path, without `.` and doubled slashes.
    pub name: String,
    /// Length of its contents in bytes.
    pub size: u64,
    /// Whether it is a regular file.
    pub regular: bool,
}

/// What kind of member a header begins.
enum Kind {
    Regular,
    /// A link or a folder: it has no contents.
    Empty,
    /// A pax header for the next member.
    Pax,
}

/// The members of an archive, in their order.
pub(super) struct Members<T> {
    archive: T,
    /// Where the next header is.
    next: u64,
    count: usize,
}

impl<T: Read + Seek> Members<T> {
    pub(super) fn new(archive: T) -> Self {
        Members { archive, next: 0, count: 0 }
    }

    /// The next member; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Refused> {
        loop {
            self.count += 1;
            if self.count > MEMBERS {
                return Err(Refused::Tar(format!("more than {MEMBERS} members")));
            }
            self.archive.seek(SeekFrom::Start(self.next))?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block == [0; BLOCK as usize] {
                return match self.block()? {
                    None => Ok(None),
                    Some(second) if second == block => Ok(None),
                    Some(_) => Err(Refused::Tar("members after an empty block".to_owned())),
                };
            }
            let (member, kind) = header(&block)?;
            let contents = self.next + BLOCK;
            let padded = member.size.checked_next_multiple_of(BLOCK).and_then(|size| contents.checked_add(size));
            self.next = padded.ok_or_else(|| Refused::Tar(format!("{} of {} bytes", member.name, member.size)))?;
            match kind {
                Kind::Pax => pax(&self.contents_at(contents, member.size, PAX)?)?,
                Kind::Regular | Kind::Empty => return Ok(Some(member)),
            }
        }
    }

    /// The contents of the member that was returned last.
    pub(super) fn contents(&mut self, member: &Member) -> Result<Vec<u8>, Refused> {
        let padded = member.size.next_multiple_of(BLOCK);
        self.contents_at(self.next - padded, member.size, member.size)
    }

    fn contents_at(&mut self, at: u64, size: u64, most: u64) -> Result<Vec<u8>, Refused> {
        if size > most {
            return Err(Refused::Tar(format!("a header of {size} bytes")));
        }
        self.archive.seek(SeekFrom::Start(at))?;
        let mut contents = Vec::new();
        self.archive.by_ref().take(size).read_to_end(&mut contents)?;
        match contents.len() as u64 == size {
            true => Ok(contents),
            false => Err(Refused::Tar("one that ends in the middle".to_owned())),
        }
    }

    /// A block; none at the very end.
    fn block(&mut self) -> Result<Option<Block>, Refused> {
        let mut block = [0; BLOCK as usize];
        let mut read = 0;
        while read < block.len() {
            match self.archive.read(&mut block[read..]) {
                Ok(0) if read == 0 => return Ok(None),
                Ok(0) => return Err(Refused::Tar("a file whose length is no multiple of 512".to_owned())),
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }
}

fn header(block: &Block) -> Result<(Member, Kind), Refused> {
    let sum = |sum: u64, (at, byte): (usize, &u8)| sum + u64::from(if (148..156).contains(&at) { b' ' } else { *byte });
    if octal(&block[148..156]) != Some(block.iter().enumerate().fold(0, sum)) {
        return Err(Refused::Tar("a header whose checksum is wrong".to_owned()));
    }
    let name = name(block)?;
    let size = octal(&block[124..136]);
    let size = size.ok_or_else(|| Refused::Tar(format!("{name} with a length that is no octal number")))?;
    let kind = match block[156] {
        b'0' | 0 if name.ends_with('/') => return Err(Refused::Tar(format!("{name}, a file with a folder's name"))),
        b'0' | 0 => Kind::Regular,
        // Hard link, symbolic link, folder. Programs differ in whether such a member may have contents.
        b'1' | b'2' | b'5' if size == 0 => Kind::Empty,
        b'x' => Kind::Pax,
        other => {
            let what =
                format!("{name} of type {:?} and {size} bytes, which programs read differently", char::from(other));
            return Err(Refused::Tar(what));
        }
    };
    // Headers for the next member have names that mean nothing.
    let name = if matches!(kind, Kind::Pax) { name } else { clean(&name)? };
    Ok((Member { name, size, regular: matches!(kind, Kind::Regular) }, kind))
}

/// The name as the header's form has it: ustar's has a prefix, GNU's has other things in its place.
fn name(block: &Block) -> Result<String, Refused> {
    let refused = |what: &str| Err(Refused::Tar(what.to_owned()));
    let (name, prefix) = (text(&block[0..100])?, &block[345..500]);
    match &block[257..265] {
        b"ustar\x0000" if &block[508..512] == b"tar\0" => refused("a form of tar (star) that is not read"),
        b"ustar\x0000" => match text(prefix)? {
            prefix if prefix.is_empty() => Ok(name),
            prefix => Ok(format!("{prefix}/{name}")),
        },
        b"ustar  \0" if prefix.iter().all(|byte| *byte == 0) => Ok(name),
        b"ustar  \0" => refused("a form of tar (GNU, incremental) that is not read"),
        _ => refused("another kind of file"),
    }
}

/// A field's text, up to its first NUL. What is no printable ASCII is refused: no member that matters has such a name.
fn text(field: &[u8]) -> Result<String, Refused> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    match field[..end].iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        true => Ok(field[..end].iter().map(|byte| char::from(*byte)).collect()),
        false => Err(Refused::Tar("a name with characters that are no printable ASCII".to_owned())),
    }
}

/// A number in octal digits, between blanks and NULs; none for the other forms that exist (base 256).
fn octal(field: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    field[start..end].iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// The path without `.` and doubled slashes (Go's `path.Clean`). One that begins at the root or climbs is refused.
fn clean(name: &str) -> Result<String, Refused> {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return Err(Refused::Tar(format!("{name:?}, which leads out of the archive")));
    }
    Ok(name.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/"))
}

/// Looks through a pax header, `LENGTH KEY=VALUE\n` each: one that says something of the next member's name, length or
/// form is refused.
fn pax(header: &[u8]) -> Result<(), Refused> {
    let refused = |what: String| Err(Refused::Tar(what));
    let mut rest = header;
    while !rest.is_empty() {
        let length = rest.iter().position(|byte| *byte == b' ');
        let length = length.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        let length = length.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = length.and_then(|text| Some((text.len() + 1, text.parse::<usize>().ok()?)));
        let record = length.and_then(|(start, end)| rest.get(start..end)).and_then(|record| record.strip_suffix(b"\n"));
        let (Some((_, end)), Some(record)) = (length, record) else {
            return refused("a damaged pax header".to_owned());
        };
        let key = record.split(|byte| *byte == b'=').next().unwrap_or_default();
        let harmless = [&b"mtime"[..], b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment"]
            .contains(&key)
            || [&b"LIBARCHIVE."[..], b"SCHILY."].iter().any(|start| key.starts_with(start));
        if !harmless || !record.contains(&b'=') || record.contains(&0) {
            return refused(format!("a pax header with {:?}", String::from_utf8_lossy(key)));
        }
        rest = &rest[end..];
    }
    Ok(())
}
