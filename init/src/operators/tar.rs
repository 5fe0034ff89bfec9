//! A tar archive as it is written (POSIX.1-1988 ustar): regular files with short names.

/// Length of a header, and of the blocks that contents are padded to.
const BLOCK: usize = 512;
/// Characters of a name at most.
const NAME: usize = 100;

/// One file: header, contents and padding. Its name is cut to what a header holds.
pub fn member(name: &str, contents: &[u8], modified: u64) -> Vec<u8> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(NAME)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", contents.len()).as_bytes());
    // Eleven octal digits hold times until the year 2242.
    put(136, format!("{:011o}\0", modified & 0o77_777_777_777).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = Vec::with_capacity(2 * BLOCK + contents.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(contents);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// What ends an archive.
pub fn end() -> [u8; 2 * BLOCK] {
    [0; 2 * BLOCK]
}
