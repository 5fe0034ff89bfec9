//! What was applied, so that what is dropped can be removed again.
//!
//! A ConfigMap lists the objects of each add-on by name. It is written with the old and the new objects before anything
//! is applied, and with the new ones alone after the old ones are gone: an agent that dies between leaves a list that
//! has too much, never too little.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::AddOn;

/// The ConfigMap's path in the API.
pub const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/kubeboot-addons";
/// Every applied object has this label; its value is the add-on's name. What has it no longer is the user's.
pub const LABEL: &str = "kubeboot.local/addon";

/// An object by its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Empty for what has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Objects by add-on.
pub type Inventory = BTreeMap<String, BTreeSet<Reference>>;

impl Reference {
    /// Of an object.
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Reference {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    /// As much of the object as says which one it is.
    pub fn object(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if !self.namespace.is_empty() {
            metadata["namespace"] = json!(self.namespace);
        }
        json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata})
    }
}

/// The objects as they are applied: each with the label of its add-on.
pub fn labelled(addon: &AddOn) -> Vec<Value> {
    let label = |object: &Value| {
        let mut object = object.clone();
        object["metadata"]["labels"][LABEL] = json!(addon.name);
        object
    };
    addon.objects.iter().map(label).collect()
}

/// What should be listed.
pub fn of(addons: &[AddOn]) -> Inventory {
    addons.iter().map(|addon| (addon.name.to_owned(), addon.objects.iter().map(Reference::of).collect())).collect()
}

/// What is listed in the ConfigMap. An entry that can't be read lists nothing: its objects stay, which is safe.
pub fn read(config_map: Option<&Value>) -> Inventory {
    let data = config_map.and_then(|map| map.get("data")).and_then(Value::as_object);
    let entry = |(name, text): (&String, &Value)| {
        Some((name.clone(), text.as_str().and_then(|text| serde_json::from_str(text).ok())?))
    };
    data.map(|data| data.iter().filter_map(entry).collect()).unwrap_or_default()
}

/// The ConfigMap that lists `inventory`.
pub fn config_map(inventory: &Inventory) -> Value {
    let text = |objects| serde_json::to_string(objects).expect("references are strings");
    let data: BTreeMap<&String, String> = inventory.iter().map(|(name, objects)| (name, text(objects))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubeboot-addons", "namespace": "kube-system"},
        "data": data,
    })
}

/// Both lists together.
pub fn union(one: &Inventory, two: &Inventory) -> Inventory {
    let mut all = one.clone();
    for (name, objects) in two {
        all.entry(name.clone()).or_default().extend(objects.iter().cloned());
    }
    all
}

/// What is listed and no longer wanted by any add-on, with the name of the add-on that it was of.
pub fn dropped(listed: &Inventory, wanted: &Inventory) -> Vec<(String, Reference)> {
    let kept: BTreeSet<&Reference> = wanted.values().flatten().collect();
    let all = listed.iter().flat_map(|(name, objects)| objects.iter().map(move |object| (name, object)));
    all.filter(|(_, object)| !kept.contains(object)).map(|(name, object)| (name.clone(), object.clone())).collect()
}

/// Whether an object is still the add-on's: a user who took the label away keeps it.
pub fn is_of(object: &Value, addon: &str) -> bool {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    labels.and_then(|labels| labels.get(LABEL)).and_then(Value::as_str) == Some(addon)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addon(name: &'static str, objects: &[&str]) -> AddOn {
        let object = |object: &&str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": object}});
        AddOn { name, objects: objects.iter().map(object).collect() }
    }

    #[test]
    fn the_list_survives_the_cluster() {
        let inventory = of(&[addon("dns", &["a", "b"]), addon("empty", &[])]);
        assert_eq!(read(Some(&config_map(&inventory))), inventory);
        assert_eq!(read(None), Inventory::new());
        let torn = json!({"data": {"dns": "[{", "other": 3}});
        assert_eq!(read(Some(&torn)), Inventory::new());
    }

    #[test]
    fn what_no_addon_wants_is_dropped_and_what_moved_between_addons_is_not() {
        let listed = of(&[addon("old", &["gone", "moved"]), addon("dns", &["kept"])]);
        let wanted = of(&[addon("dns", &["kept", "moved"])]);
        let dropped: Vec<_> = dropped(&listed, &wanted).into_iter().map(|(name, object)| (name, object.name)).collect();
        assert_eq!(dropped, [("old".to_owned(), "gone".to_owned())]);
        assert_eq!(union(&listed, &wanted)["dns"].len(), 2);
    }

    #[test]
    fn applied_objects_carry_the_label_and_lose_ownership_with_it() {
        let object = labelled(&addon("dns", &["a"])).remove(0);
        assert!(is_of(&object, "dns"));
        assert!(!is_of(&object, "other"));
        assert!(!is_of(&json!({"metadata": {"name": "a"}}), "dns"));
    }

    #[test]
    fn a_reference_names_its_object() {
        let object =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "kube-system"}});
        assert_eq!(Reference::of(&object).object(), object);
    }
}
