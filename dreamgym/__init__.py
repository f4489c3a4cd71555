"""dreamgym: trained world models as standard gymnasium environments."""
