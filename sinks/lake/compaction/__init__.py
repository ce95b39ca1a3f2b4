"""Small files become large ones: what to do (`plan`), in which order (`merge`), the work (`rewrite`, `compactor`)."""
