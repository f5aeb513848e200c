//! Keywright keeps the credentials of API providers, proves that each belongs to its environment,
//! rotates them by policy and pushes the new ones to the applications.
