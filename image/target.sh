# Sourced by the commands that compile, in the root of their workspace. Cargo goes by times: in a folder that several checkouts
# compile into, it takes for fresh what another one compiled after this one's files were written.

# take_target FOLDER PROFILE...: cargo compiles into this folder, which only this checkout does until the process and
# its children have ended. What another one compiled of its own crates is forgotten; dependencies stay.
take_target() {
  export CARGO_TARGET_DIR="$1"
  shift
  mkdir -p "$CARGO_TARGET_DIR"
  exec 9>>"$CARGO_TARGET_DIR/checkout.lock"
  flock --shared 9
  while [ "$(cat "$CARGO_TARGET_DIR/checkout" 2>/dev/null)" != "$PWD" ]; do
    flock --unlock 9
    flock --exclusive --nonblock 9 || {
      echo "Waiting for another checkout's command to end: both compile into $CARGO_TARGET_DIR (CARGO_TARGET_DIR)" >&2
      flock --exclusive 9
    }
    for profile; do
      cargo clean --quiet --workspace --profile "$profile"
    done
    printf '%s' "$PWD" >"$CARGO_TARGET_DIR/checkout"
    # Another checkout may come between: then once more.
    flock --shared 9
  done
}
