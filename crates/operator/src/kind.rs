//! Bounds on custom resources that a controller can watch.

use std::fmt::Debug;

use kube::Resource;
use kube::core::DeserializeGuard;
use serde::de::DeserializeOwned;

/// Kind of custom resource that a controller reconciles.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// Watched object, which may have failed to deserialize: an invalid object must not end the watch of the others.
pub(crate) type Guarded<K> = DeserializeGuard<K>;
