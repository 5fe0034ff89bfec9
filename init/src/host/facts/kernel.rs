//! The kernel's version, file systems and modules.

use std::collections::BTreeSet;
use std::fs;

use super::{Root, text_or_empty};
use crate::facts::{Kernel, Presence, kernel::WATCHED, procfs};

/// Looks up the version, the file systems and each module of [`WATCHED`].
pub(super) fn gather(root: &Root) -> Kernel {
    let release = text_or_empty(root, "/proc/sys/kernel/osrelease").trim().to_owned();
    let filesystems = procfs::filesystems(&text_or_empty(root, "/proc/filesystems"));
    let mut lists = Lists { folder: format!("/lib/modules/{release}"), built_in: None, loadable: None };
    let modules = WATCHED
        .iter()
        .map(|name| {
            let known = filesystems.contains(*name);
            let presence = if known { Presence::BuiltIn } else { lists.presence(root, name) };
            ((*name).to_owned(), presence)
        })
        .collect();
    Kernel { release, filesystems, modules }
}

/// `modules.builtin` and `modules.dep` of this kernel, each read once and only if some module asks for it.
struct Lists {
    folder: String,
    built_in: Option<Option<BTreeSet<String>>>,
    loadable: Option<BTreeSet<String>>,
}

impl Lists {
    fn presence(&mut self, root: &Root, name: &str) -> Presence {
        // Built-in modules with parameters are there too, but nobody here minds the difference.
        if root.path(format!("/sys/module/{name}")).exists() {
            return Presence::Loaded;
        }
        let built_in = self.built_in.get_or_insert_with(|| {
            fs::read_to_string(root.path(format!("{}/modules.builtin", self.folder))).ok().map(|text| watched(&text))
        });
        let Some(built_in) = built_in else { return Presence::Unknown };
        if built_in.contains(name) {
            return Presence::BuiltIn;
        }
        let loadable =
            self.loadable.get_or_insert_with(|| watched(&text_or_empty(root, &format!("{}/modules.dep", self.folder))));
        if loadable.contains(name) { Presence::Loadable } else { Presence::Missing }
    }
}

/// The names of [`WATCHED`] in a list with one module's file a line, dependencies after a colon.
fn watched(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter_map(|line| procfs::module_name(line.split(':').next()?))
        .filter(|name| WATCHED.binary_search(&name.as_str()).is_ok())
        .collect()
}
