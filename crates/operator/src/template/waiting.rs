//! Objects that wait for a template: each is reconciled again once the control plane has it.

use std::collections::HashMap;

use kube::ResourceExt;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::controller::Stores;
use crate::kind::{Guarded, Kind};

/// Namespace and name of a template, without a version.
type Template = (String, String);
type Object<K> = ObjectRef<Guarded<K>>;

/// Objects of one kind that wait for templates.
pub(crate) struct Waiting<K: Kind>(Mutex<Waiters<K>>);

struct Waiters<K: Kind> {
    by_template: HashMap<Template, HashMap<Object<K>, mpsc::Sender<Object<K>>>>,
    template_of: HashMap<Object<K>, Template>,
}

impl<K: Kind> Default for Waiting<K> {
    fn default() -> Self {
        Self(Mutex::new(Waiters { by_template: HashMap::new(), template_of: HashMap::new() }))
    }
}

impl<K: Kind> Waiters<K> {
    fn forget(&mut self, object: &Object<K>) {
        let Some(template) = self.template_of.remove(object) else { return };
        if let Some(objects) = self.by_template.get_mut(&template) {
            objects.remove(object);
            if objects.is_empty() {
                self.by_template.remove(&template);
            }
        }
    }
}

impl<K: Kind + kube::Resource<Scope = NamespaceResourceScope>> Waiting<K> {
    /// Notes that an object waits for a template, `NAME` or `NAME@VERSION`. To be called before the control plane is asked for the
    /// template, so that one that is stored meanwhile wakes the object.
    pub(crate) fn wait(&self, stores: &Stores<K>, object: &K, template: &str) {
        let reference = reference(object);
        let known = stores.iter().find(|(store, _)| store.get(&reference).is_some());
        let Some((_, trigger)) = known else { return };
        let name = template.split_once('@').map_or(template, |(name, _)| name).to_owned();
        let template = (object.namespace().unwrap_or_default(), name);
        let mut waiters = self.0.lock();
        waiters.forget(&reference);
        waiters.template_of.insert(reference.clone(), template.clone());
        waiters.by_template.entry(template).or_default().insert(reference, trigger.clone());
    }

    /// Forgets an object, which waits no longer.
    pub(crate) fn forget(&self, object: &K) {
        self.0.lock().forget(&reference(object));
    }

    /// Forgets the objects that the stores do not have.
    pub(crate) fn retain_known(&self, stores: &Stores<K>) {
        let mut waiters = self.0.lock();
        let is_unknown = |object: &&Object<K>| stores.iter().all(|(store, _)| store.get(object).is_none());
        let unknown: Vec<_> = waiters.template_of.keys().filter(is_unknown).cloned().collect();
        for object in unknown {
            waiters.forget(&object);
        }
    }

    /// Triggers the objects that wait for a template.
    pub(crate) async fn wake(&self, namespace: &str, name: &str) {
        let template = (namespace.to_owned(), name.to_owned());
        let woken = {
            let mut waiters = self.0.lock();
            let woken = waiters.by_template.remove(&template).unwrap_or_default();
            for object in woken.keys() {
                waiters.template_of.remove(object);
            }
            woken
        };
        for (object, trigger) in woken {
            let _ = trigger.send(object).await;
        }
    }
}

/// Returns the reference by which the stores know an object.
fn reference<K: Kind + kube::Resource<Scope = NamespaceResourceScope>>(object: &K) -> Object<K> {
    ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default())
}
