"""Ray: connection, planner, slots and their worker groups, jobs."""
