//! Stories, tables and properties of the one transition function.
