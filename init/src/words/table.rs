//! Tables: columns as wide as their widest cell, two blanks between them.

/// The table, ending in a newline.
pub fn text<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let lines: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out += super::one_line(&cells.collect::<Vec<_>>().join("  ")).trim_end();
        out.push('\n');
    }
    out
}
