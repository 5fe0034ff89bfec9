//! What takes how much.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};

use super::Release;

/// The table that `image-builder release` prints.
///
/// # Errors
/// The release cannot be examined.
pub fn table(release: &Release) -> Result<String> {
    let metadata =
        std::fs::metadata(&release.path).with_context(|| format!("Cannot examine {}", release.path.display()))?;
    Ok(render(&release.contents, release.manifest.erofs.length, metadata.len()))
}

fn render(contents: &[(String, u64)], image: u64, file: u64) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["file", "MiB", "share"]);
    let total: u64 = contents.iter().map(|(_, length)| length).sum();
    let mut contents = contents.to_vec();
    contents.sort_by(|(a_name, a), (b_name, b)| b.cmp(a).then_with(|| a_name.cmp(b_name)));
    for (name, length) in &contents {
        table.add_row([name.clone(), mebibytes(*length), format!("{:.1} %", percent(*length, total))]);
    }
    table.add_row(["together".into(), mebibytes(total), String::new()]);
    table.add_row(["image, compressed".into(), mebibytes(image), format!("{:.1} %", percent(image, total))]);
    table.add_row(["release file".into(), mebibytes(file), String::new()]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10 + (1 << 19)) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_biggest_comes_first() {
        let contents =
            [("bin/etcd".into(), 28 << 20), ("bin/kube".into(), 154 << 20), ("images/kubeboot.tar".into(), 800 << 10)];
        insta::assert_snapshot!(render(&contents, 60 << 20, 61 << 20));
    }
}
