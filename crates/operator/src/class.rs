//! Class of an installation: which Agents and Tasks of the cluster an operator reconciles, and which pods are its own. Several
//! installations in one cluster differ in their classes, or watch different namespaces.

use std::collections::BTreeMap;
use std::fmt;

use kube::api::ObjectMeta;

use crate::cluster::{CA_CONFIG_MAP, CLASS};

/// Class of an installation. The default class has no name, and its objects have no label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class(Option<String>);

impl Class {
    /// Creates a class; an empty name is the default class.
    pub fn new(name: &str) -> Self {
        Self((!name.is_empty()).then(|| name.to_owned()))
    }

    /// Returns the selector of the objects of this class.
    pub(crate) fn selector(&self) -> String {
        self.0.as_ref().map_or_else(|| format!("!{CLASS}"), |name| format!("{CLASS}={name}"))
    }

    /// Returns whether an object is of this class.
    pub(crate) fn contains(&self, metadata: &ObjectMeta) -> bool {
        metadata.labels.as_ref().and_then(|labels| labels.get(CLASS)) == self.0.as_ref()
    }

    /// Returns the name of the ConfigMap with the certificate authority that the pods of a namespace trust. Each class has
    /// its own, since each installation has an authority of its own.
    pub(crate) fn authority_name(&self) -> String {
        self.0.as_ref().map_or_else(|| CA_CONFIG_MAP.to_owned(), |name| format!("{CA_CONFIG_MAP}-{name}"))
    }

    /// Labels an object as one of this class, whatever labels its owner gives it.
    pub(crate) fn label(&self, labels: &mut BTreeMap<String, String>) {
        match &self.0 {
            Some(name) => drop(labels.insert(CLASS.to_owned(), name.clone())),
            None => drop(labels.remove(CLASS)),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::WorkerOptions;
    use crate::agent::PodSpecInput;

    fn pod(class: &Class) -> Pod {
        let agent = serde_saphyr::from_str(
            "{apiVersion: rota.dev/v1alpha1, kind: Agent, metadata: {name: a, namespace: n, uid: u},
              spec: {runtime: {scripted: {}}, pod: {labels: {rota.dev/class: other}}}}",
        )
        .unwrap();
        let options = WorkerOptions { class: class.clone(), ..WorkerOptions::default() };
        PodSpecInput { agent: &agent, options: &options, task: None }.pod().unwrap()
    }

    #[test]
    fn pods_belong_to_the_class_of_their_operator() {
        for (class, map) in [(Class::default(), "rota-ca"), (Class::new("blue"), "rota-ca-blue")] {
            let pod = pod(&class);
            assert!(class.contains(&pod.metadata), "{pod:?}");
            let volumes = pod.spec.unwrap().volumes.unwrap();
            let maps: Vec<_> =
                volumes.iter().filter_map(|volume| Some(volume.config_map.as_ref()?.name.as_str())).collect();
            assert_eq!(maps, [map]);
        }
    }

    #[test]
    fn classes_exclude_each_other() {
        let of = |class: Option<&str>| ObjectMeta {
            labels: class.map(|class| [(CLASS.to_owned(), class.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let (default, blue) = (Class::new(""), Class::new("blue"));
        assert_eq!(
            (default.selector(), blue.selector()),
            ("!rota.dev/class".into(), "rota.dev/class=blue".into())
        );
        assert!(default.contains(&of(None)) && !default.contains(&of(Some("blue"))));
        assert!(
            blue.contains(&of(Some("blue"))) && !blue.contains(&of(None)) && !blue.contains(&of(Some("red")))
        );
    }
}
