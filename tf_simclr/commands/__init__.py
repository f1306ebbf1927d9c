"""The commands: each module runs the configuration of one."""
