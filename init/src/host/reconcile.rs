//! Makes the cluster's objects what they should be: add-ons and the node's labels.

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::enrolment::store::COLLECTION;
use super::systemd;
use crate::certificates::Unix;
use crate::enrolment::objects::{KIND, REMOVED};
use crate::health::node_from;
use crate::kubernetes::addons::{self, AddOn, admission, inventory, removed, requests};
use crate::kubernetes::network;
use crate::plan::record::Endpoints;

/// What a round of add-ons changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Objects applied, changed or not.
    pub applied: usize,
    /// Objects removed, as `KIND NAME`.
    pub removed: Vec<String>,
}

/// Applies add-ons and removes what earlier ones left.
///
/// # Errors
/// The first call that fails; the list in the cluster then has too much, and the next round goes on from there.
pub fn add_ons(api: &Api, wanted: &[AddOn]) -> Result<Applied, ApiError> {
    let target = inventory::of(wanted);
    let listed = inventory::read(api.get_optional(inventory::PATH)?.as_ref());
    let mut done = Applied::default();
    let with_old = inventory::union(&listed, &target);
    if with_old != listed {
        api.apply(&inventory::config_map(&with_old))?;
    }
    for object in wanted.iter().flat_map(inventory::labelled) {
        // Each call is bounded; all of them together may take longer than the watchdog allows.
        systemd::alive();
        api.apply(&object)?;
        done.applied += 1;
    }
    for (addon, reference) in inventory::dropped(&with_old, &target) {
        systemd::alive();
        let path = match api.path_of(&reference.object()) {
            // Its kind went with its CustomResourceDefinition, and it with its kind.
            Err(error) if error.status() == Some(404) => continue,
            path => path?,
        };
        if api.get_optional(&path)?.is_some_and(|found| inventory::is_of(&found, &addon)) && api.delete(&path)? {
            done.removed.push(format!("{} {}", reference.kind, reference.name));
        }
    }
    if with_old != target {
        api.apply(&inventory::config_map(&target))?;
    }
    Ok(done)
}

/// How many nodes the cluster has, if no more than two.
///
/// # Errors
/// The call.
pub fn up_to_two_nodes(api: &Api) -> Result<usize, ApiError> {
    let nodes = api.get("/api/v1/nodes?limit=2")?;
    Ok(nodes.get("items").and_then(Value::as_array).map_or(0, Vec::len))
}

/// Has the API servers refuse the machines that were removed and whose certificates may live at `now`.
///
/// # Errors
/// The first call that fails; or others change the policy again and again.
pub fn bar(api: &Api, now: Unix) -> Result<(), ApiError> {
    let (path, removals) = (
        format!("{}/{}", admission::POLICIES, removed::NAME),
        format!("{COLLECTION}?labelSelector={}%3D{REMOVED}", KIND.replace('/', "%2F")),
    );
    let mut conflict = None;
    for _ in 0..TRIES {
        // In this order: who was barred since the policy was read made it another version.
        let found = api.get_optional(&path)?;
        let list = api.get_optional(&removals)?.unwrap_or_default();
        let items = list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let uids = removed::uids(items, now);
        if found.is_none() && uids.is_empty() {
            return Ok(());
        }
        match settle(api, admission::POLICIES, found, removed::policy(&uids), admission::says) {
            Err(error) if error.status() == Some(409) => conflict = Some(error),
            Err(error) => return Err(error),
            Ok(()) => return bind(api, removed::NAME),
        }
    }
    conflict.map_or(Ok(()), Err)
}

/// Has the API servers refuse certificate requests that nobody needs, whatever somebody made of what does that.
///
/// # Errors
/// The first call that fails.
pub fn refuse_requests(api: &Api) -> Result<(), ApiError> {
    let found = api.get_optional(&format!("{}/{}", admission::POLICIES, requests::NAME))?;
    passed_over(settle(api, admission::POLICIES, found, requests::policy(), admission::says))?;
    bind(api, requests::NAME)
}

/// Puts the policy of this name in force, whatever somebody made of that.
fn bind(api: &Api, name: &str) -> Result<(), ApiError> {
    let found = api.get_optional(&format!("{}/{name}", admission::BINDINGS))?;
    passed_over(settle(api, admission::BINDINGS, found, admission::binding(name), admission::binds))
}

/// Who gets in the way makes the same of it, or the next round mends it.
fn passed_over(changed: Result<(), ApiError>) -> Result<(), ApiError> {
    match changed {
        Err(error) if error.status() == Some(409) => Ok(()),
        changed => changed,
    }
}

/// Makes an object that is missing, and puts one back that is not the `same`, in the version that was found.
fn settle(
    api: &Api,
    collection: &str,
    found: Option<Value>,
    mut wanted: Value,
    same: fn(&Value, &Value) -> bool,
) -> Result<(), ApiError> {
    let Some(found) = found else { return api.post(collection, &wanted).map(drop) };
    if same(&found, &wanted) {
        return Ok(());
    }
    wanted["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
    let path = format!("{collection}/{}", wanted["metadata"]["name"].as_str().unwrap_or_default());
    api.put(&path, &wanted).map(drop)
}

/// How often a change is tried that others get in the way of.
const TRIES: usize = 8;

/// Sets the node's labels, once the kubelet has registered it. False when it has not yet.
///
/// # Errors
/// The first call that fails.
pub fn node_labels(api: &Api, node: &str, settings: &crate::settings::Settings) -> Result<bool, ApiError> {
    let Some(found) = api.get_optional(&format!("/api/v1/nodes/{node}"))? else { return Ok(false) };
    let wanted = addons::node_labels(settings);
    let has = |(key, value): (&String, &String)| {
        found.pointer("/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str) == Some(value)
    };
    if !wanted.iter().all(has) {
        api.apply(&json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "labels": wanted},
        }))?;
    }
    Ok(true)
}

/// Gives the only node of a new cluster its block of pod addresses: the one that the controller-manager would choose when
/// it has started, which takes as long again as the API server. False while the kubelet has not registered the node.
///
/// # Errors
/// The first call that fails; the controller-manager then does it.
pub fn first_block(api: &Api, node: &str, settings: &crate::settings::Settings) -> Result<bool, ApiError> {
    let nodes = api.get("/api/v1/nodes?limit=2")?;
    if nodes.get("items").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Ok(false);
    }
    if let Some(patch) = network::first_block_patch(&nodes, node, settings.cluster.pod_cidr) {
        api.merge(&format!("/api/v1/nodes/{node}"), &patch)?;
    }
    Ok(true)
}

/// Whether the node has been Ready at this boot, whose id is `boot`; `Err` within says what it is instead.
///
/// # Errors
/// A call that fails.
pub fn node_is_ready(api: &Api, node: &str, boot: &str) -> Result<Result<(), String>, ApiError> {
    let Some(found) = api.get_optional(&format!("/api/v1/nodes/{node}"))? else {
        return Ok(Err(format!("the kubelet has not registered {node}")));
    };
    let found = node_from(&found);
    Ok(match found.ready {
        _ if found.boot != boot => Err("the kubelet has not reported at this boot".to_owned()),
        Some(ready) if ready.status => Ok(()),
        Some(not) => Err(format!("{}: {}", not.reason, not.message)),
        None => Err("the kubelet has not reported yet".to_owned()),
    })
}

/// Where the API servers say that they are; a worker may read this one.
const API_SERVERS: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";

/// The cluster's API servers; none when the answer names nobody.
///
/// # Errors
/// The call fails.
pub fn api_servers(api: &Api) -> Result<Option<Endpoints>, ApiError> {
    api.get(API_SERVERS).map(|slice| Endpoints::of_slice(&slice))
}

/// Where leaders of the control plane's components are known by their leases.
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// Deletes the leases that this node's controller-manager and scheduler hold (`NODE_UUID`, client-go's leader election),
/// to be called only while neither runs here.
///
/// # Errors
/// The first call that fails.
pub fn give_up_leases(api: &Api, node: &str) -> Result<(), ApiError> {
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let path = format!("{LEASES}/{name}");
        let lease = api.get_optional(&path)?;
        let holder = lease.as_ref().and_then(|lease| lease.pointer("/spec/holderIdentity")).and_then(Value::as_str);
        if holder.and_then(|holder| holder.rsplit_once('_')).is_some_and(|(host, _)| host == node) {
            api.delete(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::api::fake::{authority, client, serve};

    fn config_maps(names: &[&str]) -> AddOn {
        let object = |name: &&str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        AddOn { name: "demo", objects: names.iter().map(object).collect() }
    }

    fn kinds() -> Value {
        json!({"resources": [{"name": "configmaps", "namespaced": true, "kind": "ConfigMap"}]})
    }

    /// Methods and paths, without queries and bodies.
    fn asked(requests: Vec<String>) -> Vec<String> {
        let short = |request: String| {
            let mut words = request.split([' ', '?']);
            format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default())
        };
        requests.into_iter().map(short).collect()
    }

    #[test]
    fn what_was_dropped_is_removed_after_the_rest_is_applied() {
        let authority = authority();
        let listed = inventory::config_map(&inventory::of(&[config_maps(&["kept", "gone"])]));
        let gone = inventory::labelled(&config_maps(&["gone"])).remove(0);
        let script =
            vec![(200, listed), (200, kinds()), (200, json!({})), (200, gone), (200, json!({})), (200, json!({}))];
        let (address, server) = serve(&authority, script);
        let done = add_ons(&client(&authority, &address), &[config_maps(&["kept"])]).unwrap();
        assert_eq!(done, Applied { applied: 1, removed: vec!["ConfigMap gone".into()] });
        let list = "/api/v1/namespaces/kube-system/configmaps/kubeboot-addons";
        assert_eq!(
            asked(server.join().unwrap()),
            [
                format!("GET {list}"),
                "GET /api/v1".into(),
                "PATCH /api/v1/namespaces/default/configmaps/kept".into(),
                "GET /api/v1/namespaces/default/configmaps/gone".into(),
                "DELETE /api/v1/namespaces/default/configmaps/gone".into(),
                format!("PATCH {list}"),
            ]
        );
    }

    #[test]
    fn an_object_whose_label_a_user_took_away_stays() {
        let authority = authority();
        let listed = inventory::config_map(&inventory::of(&[config_maps(&["gone"])]));
        let script =
            vec![(200, listed), (200, kinds()), (200, json!({"metadata": {"name": "gone"}})), (200, json!({}))];
        let (address, server) = serve(&authority, script);
        assert_eq!(add_ons(&client(&authority, &address), &[]).unwrap(), Applied::default());
        assert!(!server.join().unwrap().iter().any(|request| request.starts_with("DELETE")));
    }

    #[test]
    fn who_was_barred_by_another_meanwhile_stays_barred() {
        let authority = authority();
        let removal = |digits: &str| json!({"metadata": {"name": format!("removed-{digits}")}, "data": {}});
        let (one, two) = ("00".repeat(16), "11".repeat(16));
        let uid = |digits: &str| format!("kubeboot:node:{digits}");
        let mut newer = removed::policy(&[uid(&one), uid(&two)]);
        newer["metadata"]["resourceVersion"] = json!("8");
        let mut older = removed::policy(&[uid(&one)]);
        older["metadata"]["resourceVersion"] = json!("7");
        let both = || json!({"items": [removal(&one), removal(&two)]});
        let script = vec![
            // There is none, and somebody else makes it first.
            (404, json!({})),
            (200, json!({"items": [removal(&one)]})),
            (409, json!({})),
            // It is of the other's version, which changes once more.
            (200, older),
            (200, both()),
            (409, json!({})),
            (200, newer),
            (200, both()),
            (200, admission::binding(removed::NAME)),
        ];
        let (address, server) = serve(&authority, script);
        bar(&client(&authority, &address), 1_800_000_000).unwrap();
        let all = server.join().unwrap();
        let (policy, binding) = (
            format!("{}/{}", admission::POLICIES, removed::NAME),
            format!("{}/{}", admission::BINDINGS, removed::NAME),
        );
        assert!(all[5].contains("\"resourceVersion\":\"7\""), "{}", all[5]);
        let list = format!("GET {COLLECTION}");
        assert_eq!(
            asked(all),
            [
                format!("GET {policy}"),
                list.clone(),
                format!("POST {}", admission::POLICIES),
                format!("GET {policy}"),
                list.clone(),
                format!("PUT {policy}"),
                format!("GET {policy}"),
                list,
                format!("GET {binding}"),
            ]
        );
    }

    #[test]
    fn what_refuses_certificate_requests_is_made_and_put_back_and_else_left_alone() {
        let authority = authority();
        let mut narrowed = requests::policy();
        narrowed["metadata"]["resourceVersion"] = json!("7");
        narrowed["spec"]["validations"] = json!([]);
        let mut audited = admission::binding(requests::NAME);
        audited["metadata"]["resourceVersion"] = json!("9");
        audited["spec"]["validationActions"] = json!(["Audit"]);
        let script = vec![
            // Another control plane makes the policy at the same time.
            (404, json!({})),
            (409, json!({})),
            (404, json!({})),
            (201, json!({})),
            // Somebody changed both.
            (200, narrowed),
            (200, json!({})),
            (200, audited),
            (200, json!({})),
            (200, requests::policy()),
            (200, admission::binding(requests::NAME)),
        ];
        let (address, server) = serve(&authority, script);
        let api = client(&authority, &address);
        for _ in 0..3 {
            refuse_requests(&api).unwrap();
        }
        let all = server.join().unwrap();
        let version = |request: &str, version: &str| request.contains(&format!("\"resourceVersion\":\"{version}\""));
        assert!(version(&all[5], "7") && version(&all[7], "9"));
        let of = |collection: &str| format!("{collection}/{}", requests::NAME);
        let (policy, binding) = (of(admission::POLICIES), of(admission::BINDINGS));
        assert_eq!(
            asked(all),
            [
                format!("GET {policy}"),
                format!("POST {}", admission::POLICIES),
                format!("GET {binding}"),
                format!("POST {}", admission::BINDINGS),
                format!("GET {policy}"),
                format!("PUT {policy}"),
                format!("GET {binding}"),
                format!("PUT {binding}"),
                format!("GET {policy}"),
                format!("GET {binding}"),
            ]
        );
    }

    #[test]
    fn the_list_that_agents_of_other_releases_prune_by_has_no_policy() {
        let wanted = addons::wanted(&crate::kubernetes::sample::settings(), &addons::Seen::default());
        let listed = inventory::of(&wanted);
        assert!(listed.values().flatten().all(|reference| !reference.kind.contains("AdmissionPolicy")));
    }

    #[test]
    fn only_this_nodes_own_leases_are_given_up() {
        let authority = authority();
        let lease = |holder: &str| json!({"spec": {"holderIdentity": holder}});
        let script = vec![(200, lease("one_1b4e28ba")), (200, json!({})), (200, lease("one-two_5f2c91aa"))];
        let (address, server) = serve(&authority, script);
        give_up_leases(&client(&authority, &address), "one").unwrap();
        let path = |name: &str| format!("{LEASES}/{name}");
        assert_eq!(
            asked(server.join().unwrap()),
            [
                format!("GET {}", path("kube-controller-manager")),
                format!("DELETE {}", path("kube-controller-manager")),
                format!("GET {}", path("kube-scheduler")),
            ]
        );
    }

    #[test]
    fn a_worker_learns_where_the_api_servers_are_and_an_empty_answer_says_nothing() {
        let authority = authority();
        let slice = json!({"addressType": "IPv4", "ports": [{"name": "https", "port": 6443}], "endpoints": [
            {"addresses": ["10.0.0.12"]}, {"addresses": ["10.0.0.11"]}, {"addresses": ["nowhere"]},
        ]});
        let (address, server) = serve(&authority, vec![(200, slice), (200, json!({"endpoints": null, "ports": []}))]);
        let api = client(&authority, &address);
        let servers = ["10.0.0.11:6443", "10.0.0.12:6443"].map(|one| one.parse().unwrap());
        assert_eq!(api_servers(&api).unwrap(), Some(Endpoints::of(servers)));
        assert_eq!(api_servers(&api).unwrap(), None);
        assert_eq!(asked(server.join().unwrap()), [format!("GET {API_SERVERS}"), format!("GET {API_SERVERS}")]);
    }

    #[test]
    fn labels_are_not_set_before_the_kubelet_registered_its_node() {
        let authority = authority();
        let (address, server) = serve(&authority, vec![(404, json!({"message": "not found"}))]);
        let settings = crate::kubernetes::sample::settings();
        assert!(!node_labels(&client(&authority, &address), "one", &settings).unwrap());
        assert_eq!(asked(server.join().unwrap()), ["GET /api/v1/nodes/one"]);
    }
}
