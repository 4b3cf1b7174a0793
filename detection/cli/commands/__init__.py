"""The commands of `resdet`, one module each; `main` of a module runs its command."""
