//! Builds components, releases and images.
