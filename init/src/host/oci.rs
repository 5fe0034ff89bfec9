//! Opens an archive of container images and says what is in it.

use std::fs::File;
use std::path::Path;

use crate::archive::{self, Contents, Refused};

/// What an archive holds.
///
/// # Errors
/// [`Refused`].
pub fn images(archive: &Path) -> Result<Contents, Refused> {
    archive::read(File::open(archive)?)
}
