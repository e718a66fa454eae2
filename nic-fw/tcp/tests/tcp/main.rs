//! TCP against itself over a bad wire in virtual time, scripted segments, and hostile input.

#[allow(dead_code, reason = "others use the rest")]
mod choices;
mod flow;
mod hostile;
mod inputs;
mod scripts;
mod sim;
mod transfers;
