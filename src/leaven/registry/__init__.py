"""What there is and who serves: loops, versions, aliases, decisions, snapshots, routing tables, artifacts.

Each function takes the connection first, so that a promotion (alias, decision, routing table) is one transaction.
`leaven.registry.artifacts` needs no database; import the modules by name, so that a process loads what it uses.
"""
